/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/api.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "registry/page.h"

#define RENEW_MAX 10000 /* leases in one request */

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

/* The body as JSON; NULL after answering 400. */
static json_t *read_body(struct http_request *req)
{
	json_error_t error;
	json_t *json = json_loadb(req->body.p, req->body.len, JSON_REJECT_DUPLICATES, &error);

	if (!json)
		http_problem(req, 400, "the body is no valid JSON: line %d, column %d: %s",
			     error.line, error.column, error.text);
	return json;
}

/* The {app} of the path, in lower case. Returns false after answering 400. */
static bool read_app(struct http_request *req, char name[static REG_APP_MAX + 1])
{
	if (reg_app_name(req->params[0], name))
		return true;
	http_problem_field(req, 400, "app",
			   "must have 1 to %d letters, digits, \".\", \"_\" or \"-\"", REG_APP_MAX);
	return false;
}

static void answer_unknown(struct http_request *req, const char *app, const char *advice)
{
	http_problem(req, 404, "no instance \"%.*s\" in app \"%s\"%s", STR_ARG(req->params[1]), app,
		     advice);
}

static void answer_index(struct http_request *req, unsigned status, uint64_t index)
{
	struct buf *body = http_scratch(req);
	struct json_writer w = json_writer(body);

	json_open(&w, NULL, '{');
	json_add_u64(&w, "index", index);
	json_close(&w, '}');
	http_respond_json(req, status, buf_str(body));
}

static void answer_failure(struct http_request *req, int result)
{
	switch (result) {
	case -EDQUOT:
		http_add_header(req, "Retry-After", STR("30"));
		http_problem(req, 429,
			     "this client has as many instances registered as one may "
			     "(limits.instances_per_client)");
		break;
	case -ENOSPC:
		http_add_header(req, "Retry-After", STR("30"));
		http_problem(req, 507, "the registry is full");
		break;
	case -EAGAIN:
		http_add_header(req, "Retry-After", STR("1"));
		http_problem(req, 503,
			     "the shared store cannot be reached; nothing can be changed");
		break;
	default:
		http_add_header(req, "Retry-After", STR("5"));
		http_problem(req, 503, "out of memory");
		break;
	}
}

static void put_done(struct reg_write *write, int result, uint64_t index)
{
	if (result < 0)
		answer_failure(write->req, result);
	else
		answer_index(write->req, result == REG_PUT_NEW ? 201 : 200, index);
}

static void remove_done(struct reg_write *write, int result, uint64_t index)
{
	(void)index;
	if (result == -ENOENT)
		answer_unknown(write->req, write->app.p, "");
	else if (result < 0)
		answer_failure(write->req, result);
	else
		http_respond(write->req, 204, NULL, str_of("", 0));
}

static void status_done(struct reg_write *write, int result, uint64_t index)
{
	if (result == -ENOENT)
		answer_unknown(write->req, write->app.p, "");
	else if (result < 0)
		answer_failure(write->req, result);
	else
		answer_index(write->req, 200, index);
}

/* A write to the instance of the path. NULL after answering. */
static struct reg_write *write_new(struct http_request *req, struct reg_api *api,
				   enum reg_write_op op)
{
	struct reg_write *write = arena_new(req->arena, struct reg_write);
	char app[REG_APP_MAX + 1];

	if (!read_app(req, app))
		return NULL;
	if (write)
		write->app = arena_str(req->arena, str_from(app));
	if (!write || !write->app.p) {
		answer_failure(req, -ENOMEM);
		return NULL;
	}
	write->op = op;
	write->instance.id = req->params[1];
	write->req = req;
	write->arg = api;
	return write;
}

/* What is copied from a list may hold it, as long as it is the one of the path. */
static bool is_of_app(const json_t *json, struct str app)
{
	const json_t *value = json_object_get(json, "app");

	return !json_is_string(value) ||
	       str_ieq(str_of(json_string_value(value), json_string_length(value)), app);
}

/* Must not be applied at all when only a part of it could be: so it is read first, whole. */
static void api_put(struct http_request *req, void *arg)
{
	struct reg_api *api = arg;
	struct reg_write *write = write_new(req, api, REG_WRITE_PUT);
	CLEANUP(cleanup_json) json_t *json = NULL;
	struct reg_problem problem;
	int r;

	if (!write)
		return;
	json = read_body(req);
	if (!json)
		return;
	r = reg_instance_read(&write->instance, json, req->params[1], api->default_lease_s,
			      req->arena, &problem);
	if (r == -EINVAL) {
		http_problem_field(req, 400, problem.field, "%s", problem.text);
		return;
	}
	if (r < 0) {
		answer_failure(req, r);
		return;
	}
	if (!is_of_app(json, write->app)) {
		http_problem_field(req, 400, "app", "differs from the one in the path");
		return;
	}
	write->instance.override = REG_NO_STATUS;
	write->done = put_done;
	reg_writer_submit(api->writer, write);
}

static void api_renew(struct http_request *req, void *arg)
{
	struct reg_api *api = arg;
	char app[REG_APP_MAX + 1];
	int r;

	if (!read_app(req, app))
		return;
	r = reg_writer_renew(api->writer, str_from(app), req->params[1]);
	if (r == -ENOENT)
		answer_unknown(req, app, ": register it again");
	else if (r < 0)
		answer_failure(req, r);
	else
		http_respond(req, 204, NULL, str_of("", 0));
}

static void api_delete(struct http_request *req, void *arg)
{
	struct reg_api *api = arg;
	struct reg_write *write = write_new(req, api, REG_WRITE_REMOVE);

	if (!write)
		return;
	write->done = remove_done;
	reg_writer_submit(api->writer, write);
}

static void api_override(struct http_request *req, struct reg_api *api, enum reg_status status)
{
	struct reg_write *write = write_new(req, api, REG_WRITE_STATUS);

	if (!write)
		return;
	write->override = status;
	write->done = status_done;
	reg_writer_submit(api->writer, write);
}

static void api_set_status(struct http_request *req, void *arg)
{
	CLEANUP(cleanup_json) json_t *json = read_body(req);
	const json_t *value;
	enum reg_status status;

	if (!json)
		return;
	value = json_object_get(json, "status");
	status = reg_status_parse(str_of(json_string_value(value), json_string_length(value)));
	if (json_object_size(json) != 1 || status == REG_NO_STATUS || status == REG_UNKNOWN) {
		http_problem_field(req, 400, "status",
				   "the body must be {\"status\": …} with UP, DOWN, STARTING or "
				   "OUT_OF_SERVICE");
		return;
	}
	api_override(req, arg, status);
}

static void api_clear_status(struct http_request *req, void *arg)
{
	api_override(req, arg, REG_NO_STATUS);
}

/* Of those that may be changed, others being as if unknown: renews one ["app","id"]. Returns
 * whether it is one and known; *is_pair whether it is one. */
static bool renew_pair(struct reg_api *api, const json_t *pair, bool *is_pair)
{
	const json_t *app = json_array_get(pair, 0), *id = json_array_get(pair, 1);
	char name[REG_APP_MAX + 1];

	*is_pair = json_array_size(pair) == 2 && json_is_string(app) && json_is_string(id);
	return *is_pair &&
	       reg_app_name(str_of(json_string_value(app), json_string_length(app)), name) &&
	       reg_grant_may_write(&api->grant, str_from(name)) &&
	       reg_writer_renew(api->writer, str_from(name),
				str_of(json_string_value(id), json_string_length(id))) == 0;
}

static void write_pair(struct json_writer *w, const json_t *pair)
{
	json_open(w, NULL, '[');
	for (size_t i = 0; i < 2; i++) {
		const json_t *text = json_array_get(pair, i);

		json_add_str(w, NULL, str_of(json_string_value(text), json_string_length(text)));
	}
	json_close(w, ']');
}

static void api_renew_many(struct http_request *req, void *arg)
{
	struct reg_api *api = arg;
	CLEANUP(cleanup_json) json_t *json = read_body(req);
	const json_t *list;
	struct json_writer w;
	struct buf *body;

	if (!json)
		return;
	list = json_object_get(json, "instances");
	if (!json_is_array(list) || json_array_size(list) > RENEW_MAX) {
		http_problem_field(req, 400, "instances",
				   "must be an array of at most %d pairs [\"app\", \"id\"]",
				   RENEW_MAX);
		return;
	}
	body = http_scratch(req);
	w = json_writer(body);
	json_open(&w, NULL, '{');
	json_open(&w, "unknown", '[');
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *pair = json_array_get(list, i);
		bool is_pair;

		if (renew_pair(api, pair, &is_pair))
			continue;
		if (!is_pair) {
			char field[48];

			snprintf(field, sizeof(field), "instances[%zu]", i);
			http_problem_field(req, 400, field, "must be a pair [\"app\", \"id\"]");
			return;
		}
		write_pair(&w, pair);
	}
	json_close(&w, ']');
	json_close(&w, '}');
	if (reg_writer_is_away(api->writer))
		answer_failure(req, -EAGAIN);
	else
		http_respond_json(req, 200, buf_str(body));
}

/* What is not known must not look empty. */
static bool may_read(const struct reg_api *api, struct http_request *req)
{
	if (api->writer->is_loaded)
		return true;
	http_add_header(req, "Retry-After", STR("1"));
	http_problem(req, 503, "the shared store was not read yet");
	return false;
}

static bool may_watch(const struct reg_api *api, struct http_request *req)
{
	const struct reg_watch_stats *w = reg_watch_stats(api->watch);

	if (!may_read(api, req))
		return false;
	if (w->streams + w->waiters < api->max_watches)
		return true;
	http_add_header(req, "Retry-After", STR("5"));
	http_problem(req, 429, "as many watch as may at the same time (limits.watches: %u)",
		     (unsigned)api->max_watches);
	return false;
}

/* Only a query with an index waits: lists are read however many watch. */
static bool may_query(const struct reg_api *api, struct http_request *req)
{
	struct str index;

	return http_query(req, "index", &index) == -ENOENT ? may_read(api, req)
							   : may_watch(api, req);
}

static void api_apps(struct http_request *req, void *arg)
{
	if (may_query(arg, req))
		reg_watch_apps(((struct reg_api *)arg)->watch, req);
}

static void api_app(struct http_request *req, void *arg)
{
	if (may_query(arg, req))
		reg_watch_app(((struct reg_api *)arg)->watch, req);
}

static void api_watch(struct http_request *req, void *arg)
{
	if (may_watch(arg, req))
		reg_watch_stream(((struct reg_api *)arg)->watch, req);
}

/* The most frequent first: they are looked through in this order. */
static const struct http_route routes[] = {
	{ METHOD_POST, "/v1/apps/{app}/instances/{id}/renew", api_renew, false },
	{ METHOD_PUT, "/v1/apps/{app}/instances/{id}", api_put, false },
	{ METHOD_POST, "/v1/renew", api_renew_many, false },
	{ METHOD_GET, "/v1/apps/{app}", api_app, false },
	{ METHOD_GET, "/v1/apps", api_apps, false },
	{ METHOD_GET, "/v1/watch", api_watch, false },
	{ METHOD_DELETE, "/v1/apps/{app}/instances/{id}", api_delete, false },
	{ METHOD_PUT, "/v1/apps/{app}/instances/{id}/status", api_set_status, false },
	{ METHOD_DELETE, "/v1/apps/{app}/instances/{id}/status", api_clear_status, false },
	{ METHOD_GET, "/v1/apps/{app}/leases", reg_page_leases, false },
	{ METHOD_GET, "/v1/changes", reg_page_changes, false },
	{ METHOD_GET, "/", reg_page_get, false },
	{ METHOD_GET, "/healthz", reg_admin_health, false },
	{ METHOD_GET, "/readyz", reg_admin_ready, false },
	{ METHOD_GET, "/metrics", reg_admin_metrics, false },
	{ METHOD_GET, "/status", reg_admin_status, false },
};

/* Only who may register something is anybody's client. */
static bool may_register(const struct http_request *req)
{
	return req->method_id == METHOD_PUT || req->method_id == METHOD_POST;
}

void reg_api_on_request(struct http_request *req, void *arg)
{
	struct reg_api *api = arg;
	bool is_client = may_register(req);

	if (!reg_access_check(api->access, req, &api->grant))
		return;
	if (is_client)
		reg_store_act_for(
			api->writer->store,
			reg_quotas_use(api->quotas, reg_grant_name(&api->grant), req->peer));
	if (api->eureka && reg_eureka_is_for(req))
		reg_eureka_on_request(api->eureka, req);
	else
		http_route(req, routes, ARRAY_SIZE(routes), api);
	if (is_client) {
		reg_store_act_for(api->writer->store, NULL);
		reg_quotas_done(api->quotas);
	}
}
