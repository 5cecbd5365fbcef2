/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/admin.h"

#include <errno.h>

#include "gateway/analytics/report.h"
#include "gateway/handover.h"
#include "gateway/identity/revocations.h"
#include "gateway/metrics.h"
#include "gateway/status.h"
#include "gateway/survey.h"
#include "gateway/upgrade.h"
#include "lib/http_server.h"

struct admin {
	struct http_server *server;
	struct gateway *gateway;
	int inherited[ADMIN_LISTENERS_MAX]; /* not answered on yet */
	size_t inherited_count;
};

static void get_healthz(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond(req, 200, "text/plain", STR("ok\n"));
}

static void get_readyz(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	if (gateway_is_ready(a->gateway))
		http_respond(req, 200, "text/plain", STR("ready\n"));
	else
		http_problem(req, 503, "not ready: %s", gateway_state_name(a->gateway->state));
}

static void get_metrics(struct http_request *req, void *arg)
{
	const struct admin *a = arg;
	struct buf *out = http_scratch(req);

	gateway_write_metrics(a->gateway, out);
	http_respond(req, 200, METRICS_CONTENT_TYPE, buf_str(out));
}

static void respond_status(const struct gateway *g, const struct survey *survey,
			   struct http_request *req)
{
	struct buf *out = http_scratch(req);

	gateway_write_status(g, survey, out);
	http_respond_json(req, 200, buf_str(out));
}

/* Somebody who waits for what the workers know. */
struct status_wait {
	struct gateway *gateway;
	struct http_request *req; /* NULL: has left */
};

static void on_status_gone(struct http_request *req)
{
	struct status_wait *wait = req->user;

	wait->req = NULL;
}

static void on_survey(const struct survey *survey, void *arg)
{
	struct status_wait *wait = arg;

	if (wait->req)
		respond_status(wait->gateway, survey, wait->req);
	free(wait);
}

static void get_status(struct http_request *req, void *arg)
{
	struct admin *a = arg;
	struct status_wait *wait;

	/* Workers that have drained answer no more. */
	wait = a->gateway->state <= GATEWAY_RUNNING ? calloc(1, sizeof(*wait)) : NULL;
	if (wait) {
		*wait = (struct status_wait) { a->gateway, req };
		req->user = wait;
		req->on_gone = on_status_gone;
		if (survey_start(a->gateway, on_survey, wait) == 0)
			return;
		req->on_gone = NULL;
		free(wait);
	}
	respond_status(a->gateway, NULL, req);
}

static void get_analytics(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	report_analytics(a->gateway, req);
}

static void get_versions(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	report_versions(a->gateway, req);
}

static void post_reload(struct http_request *req, void *arg)
{
	struct admin *a = arg;
	struct buf errors;

	buf_init(&errors, 256UL * 1024);
	if (gateway_reload(a->gateway, &errors) == 0)
		http_respond_json(req, 200, STR("{\"reloaded\":true}"));
	else
		http_problem(req, 422, "%.*s", STR_ARG(str_chomp(buf_str(&errors))));
	buf_fini(&errors);
}

static void post_drain(struct http_request *req, void *arg)
{
	struct admin *a = arg;

	http_respond_json(req, 202, STR("{\"draining\":true}"));
	gateway_drain(a->gateway);
}

static void post_upgrade(struct http_request *req, void *arg)
{
	struct admin *a = arg;

	upgrade_start(a->gateway, req);
}

static void post_handover(struct http_request *req, void *arg)
{
	struct admin *a = arg;

	handover_give(a->gateway, req);
}

static void post_revoke(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	revocations_post(req, a->gateway);
}

static void post_unrevoke(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	revocations_remove(req, a->gateway);
}

static void get_revocations(struct http_request *req, void *arg)
{
	const struct admin *a = arg;

	revocations_list(req, a->gateway);
}

static const struct http_route routes[] = {
	{ METHOD_GET, "/healthz", get_healthz, false },
	{ METHOD_GET, "/readyz", get_readyz, false },
	{ METHOD_GET, "/metrics", get_metrics, false },
	{ METHOD_GET, "/status", get_status, false },
	/* Names people, so not for everybody who may look. */
	{ METHOD_GET, "/revocations", get_revocations, true },
	{ METHOD_POST, "/revoke", post_revoke, true },
	{ METHOD_POST, "/unrevoke", post_unrevoke, true },
	/* Also for who adds several gateways up. */
	{ METHOD_GET, "/analytics", get_analytics, false },
	{ METHOD_GET, "/versions", get_versions, false },
	{ METHOD_POST, "/reload", post_reload, true },
	{ METHOD_POST, "/drain", post_drain, true },
	{ METHOD_POST, "/upgrade", post_upgrade, true },
	{ METHOD_POST, "/handover", post_handover, true },
};

static void on_request(struct http_request *req, void *arg)
{
	http_route(req, routes, ARRAY_SIZE(routes), arg);
}

static int listen_on(struct admin *a, const struct net_addr *addr, struct err *err)
{
	int fd = sockets_take(&a->gateway->inherited, addr);

	if (fd < 0)
		return http_server_listen(a->server, addr, 0660, err);
	a->inherited[a->inherited_count++] = fd;
	return 0;
}

struct admin *admin_new(struct gateway *g, struct err *err)
{
	const struct gw_admin *conf = &g->snapshot->conf.admin;
	struct admin *a = calloc(1, sizeof(*a));
	struct http_server_config config = { .on_request = on_request, .arg = a };
	struct net_addr addr;
	int rc = 0;

	if (!a) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	a->gateway = g;
	a->server = http_server_new(g->loop, &config);
	if (!a->server)
		rc = err_set(err, -ENOMEM, "out of memory");
	if (rc == 0 && conf->bind.len)
		rc = listen_on(a, &conf->bind, err);
	if (rc == 0 && conf->socket.p) {
		if (net_parse_unix(&addr, conf->socket) < 0)
			rc = err_set(err, -EINVAL, "admin.socket: %s is too long for a unix socket",
				     conf->socket.p);
		else
			rc = listen_on(a, &addr, err);
	}
	if (rc < 0)
		admin_free(&a);
	return a;
}

int admin_accept(struct admin *a, struct err *err)
{
	int rc = 0;

	while (a->inherited_count && rc == 0)
		rc = http_server_adopt(a->server, a->inherited[--a->inherited_count], err);
	return rc;
}

size_t admin_listeners(const struct admin *a, int out[static ADMIN_LISTENERS_MAX])
{
	size_t count = 0;

	for (int fd; count < ADMIN_LISTENERS_MAX &&
		     (fd = http_server_listener(a->server, (unsigned)count)) >= 0;)
		out[count++] = fd;
	return count;
}

void admin_let_go(struct admin *a)
{
	http_server_release(a->server);
}

void admin_free(struct admin **ap)
{
	struct admin *a = *ap;

	if (!a)
		return;
	*ap = NULL;
	while (a->inherited_count)
		close(a->inherited[--a->inherited_count]);
	http_server_free(&a->server);
	free(a);
}
