/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/admin.h"

#include <errno.h>

#include "gateway/metrics.h"
#include "lib/http_server.h"

struct admin {
	struct http_server *server;
	struct gateway *gateway;
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

static void get_status(struct http_request *req, void *arg)
{
	const struct admin *a = arg;
	struct buf *out = http_scratch(req);

	gateway_write_status(a->gateway, out);
	http_respond_json(req, 200, buf_str(out));
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

static const struct http_route routes[] = {
	{ METHOD_GET, "/healthz", get_healthz, false },
	{ METHOD_GET, "/readyz", get_readyz, false },
	{ METHOD_GET, "/metrics", get_metrics, false },
	{ METHOD_GET, "/status", get_status, false },
	{ METHOD_POST, "/reload", post_reload, true },
	{ METHOD_POST, "/drain", post_drain, true },
};

static void on_request(struct http_request *req, void *arg)
{
	http_route(req, routes, ARRAY_SIZE(routes), arg);
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
		rc = http_server_listen(a->server, &conf->bind, 0, err);
	if (rc == 0 && conf->socket.p) {
		if (net_parse_unix(&addr, conf->socket) < 0)
			rc = err_set(err, -EINVAL, "admin.socket: %s is too long for a unix socket",
				     conf->socket.p);
		else
			rc = http_server_listen(a->server, &addr, 0660, err);
	}
	if (rc < 0)
		admin_free(&a);
	return a;
}

void admin_free(struct admin **ap)
{
	struct admin *a = *ap;

	if (!a)
		return;
	*ap = NULL;
	http_server_free(&a->server);
	free(a);
}
