/* SPDX-License-Identifier: Apache-2.0 */
/* Eureka's API: its paths, and what changes instances. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/gzip.h"
#include "lib/json.h"
#include "lib/loop.h"
#include "registry/eureka/instance.h"
#include "registry/eureka/private.h"
#include "registry/eureka/xml.h"

#define BODY_MAX (1UL << 20) /* unpacked */

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

static void cleanup_buf(struct buf *b)
{
	buf_fini(b);
}

/* --- answers --------------------------------------------------------------------------------- */

/* Without a body and its type: Netflix's client trips over either after a heartbeat. */
void eureka_answer(struct http_request *req, unsigned status)
{
	http_respond(req, status, NULL, str_of("", 0));
}

void eureka_answer_text(struct http_request *req, unsigned status, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	http_respond(req, status, "text/plain", str_from(text));
}

static void answer_failure(struct http_request *req, int result)
{
	if (result == -ENOENT) {
		eureka_answer(req, 404);
		return;
	}
	if (result == -EDQUOT) {
		http_add_header(req, "Retry-After", STR("30"));
		eureka_answer_text(req, 429,
				   "this client has as many instances registered as one may "
				   "(limits.instances_per_client)");
		return;
	}
	http_add_header(req, "Retry-After", result == -EAGAIN ? STR("1") : STR("5"));
	eureka_answer_text(req, 503, "%s",
			   result == -EAGAIN   ? "the shared store cannot be reached"
			   : result == -ENOSPC ? "the registry is full"
					       : "out of memory");
}

/* --- writes ---------------------------------------------------------------------------------- */

static void registered(struct reg_write *write, int result, uint64_t index)
{
	(void)index;
	if (result < 0)
		answer_failure(write->req, result);
	else
		eureka_answer(write->req, 204);
}

static void changed(struct reg_write *write, int result, uint64_t index)
{
	(void)index;
	if (result < 0)
		answer_failure(write->req, result);
	else
		eureka_answer(write->req, 200);
}

const char *eureka_app(struct http_request *req)
{
	char name[REG_APP_MAX + 1];

	return reg_app_name(req->params[0], name) ? arena_strz(req->arena, str_from(name)) : NULL;
}

static struct reg_write *write_new(struct http_request *req, enum reg_write_op op, const char *app,
				   void (*done)(struct reg_write *, int, uint64_t))
{
	struct reg_write *write = arena_new(req->arena, struct reg_write);

	if (!write) {
		answer_failure(req, -ENOMEM);
		return NULL;
	}
	write->op = op;
	write->app = str_from(app);
	write->req = req;
	write->done = done;
	return write;
}

/* The instance of the path. NULL after answering. */
static const struct reg_entry *find_entry(struct reg_eureka *e, struct http_request *req,
					  const char **app)
{
	const struct reg_entry *entry;

	*app = eureka_app(req);
	entry = *app ? reg_store_find(e->store, str_from(*app), req->params[1]) : NULL;
	if (!entry)
		answer_failure(req, reg_writer_is_away(e->writer) ? -EAGAIN : -ENOENT);
	return entry;
}

/* --- registration ---------------------------------------------------------------------------- */

static bool is_xml(const struct http_request *req, struct str body)
{
	struct str type = http_header(req, "Content-Type");

	if (str_istarts(type, STR("application/xml")) || str_istarts(type, STR("text/xml")))
		return true;
	return !type.p && body.len && body.p[0] == '<';
}

/* {"instance": …}, or the same in XML. NULL with the sentence. */
static json_t *parse_instance(const struct http_request *req, struct str body, struct err *err)
{
	CLEANUP(cleanup_json) json_t *json = NULL;
	json_t *instance;
	json_error_t error;

	if (is_xml(req, body))
		return eureka_xml_read(body, "instance", err);
	json = json_loadb(body.p, body.len, 0, &error);
	if (!json) {
		err_set(err, -EBADMSG, "line %d, column %d: %s", error.line, error.column,
			error.text);
		return NULL;
	}
	instance = json_object_get(json, "instance");
	if (!instance)
		err_set(err, -EBADMSG, "Missing instance");
	return json_incref(instance);
}

/* The body as it was before it was packed. 0 after answering: false. */
static bool unpack(struct http_request *req, struct buf *unpacked, struct str *body)
{
	struct str encoding = str_trim(http_header(req, "Content-Encoding"));
	int r;

	*body = req->body;
	if (!encoding.p || str_ieq(encoding, STR("identity")))
		return true;
	if (!str_ieq(encoding, STR("gzip")) && !str_ieq(encoding, STR("x-gzip"))) {
		http_add_header(req, "Accept-Encoding", STR("gzip"));
		eureka_answer_text(req, 415, "the only Content-Encoding taken is gzip");
		return false;
	}
	r = gzip_expand(unpacked, req->body);
	*body = buf_str(unpacked);
	if (r == -ENOSPC)
		eureka_answer_text(req, 413, "the body is too large");
	else if (r < 0)
		eureka_answer_text(req, 400, "the body is no whole gzip");
	return r == 0;
}

static json_t *read_body(struct http_request *req)
{
	CLEANUP(cleanup_buf) struct buf unpacked;
	struct err err = { "" };
	struct str body;
	json_t *json;

	buf_init(&unpacked, BODY_MAX);
	if (!unpack(req, &unpacked, &body))
		return NULL;
	json = parse_instance(req, body, &err);
	if (!json)
		eureka_answer_text(req, 400, "%s", err.text);
	return json;
}

/* What the stored one knows of itself goes on; false when it is newer than what comes now. */
static bool follow(struct eureka_info *info, const char *app, const struct reg_entry *old)
{
	struct reg_instance i;
	struct eureka_info known;

	reg_entry_get(old, &i);
	eureka_info_get(&known, app, &i);
	info->up_ms = known.up_ms;
	return !known.dirty_ms || !info->dirty_ms || known.dirty_ms <= info->dirty_ms;
}

static void put_instance(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	CLEANUP(cleanup_json) json_t *json = NULL;
	const char *app = eureka_app(req);
	const struct reg_entry *old;
	struct eureka_problem problem = { "" };
	struct eureka_info info;
	struct reg_write *write;
	int r;

	if (!app) {
		eureka_answer_text(req, 400,
				   "the name of an app must have 1 to %d letters, digits, \".\", "
				   "\"_\" or \"-\"",
				   REG_APP_MAX);
		return;
	}
	write = write_new(req, REG_WRITE_PUT, app, registered);
	if (!write)
		return;
	json = read_body(req);
	if (!json)
		return;
	r = eureka_read(&write->instance, &info, json, app, req->arena, &problem);
	old = r == 0 ? reg_store_find(e->store, write->app, write->instance.id) : NULL;
	if (old && !follow(&info, app, old)) {
		r = reg_writer_renew(e->writer, write->app, write->instance.id);
		registered(write, r, 0);
		return;
	}
	if (!info.up_ms && write->instance.status == REG_UP)
		info.up_ms = clock_wall_ms();
	if (r == 0)
		r = eureka_info_set(&write->instance, &info, req->arena);
	if (r == -E2BIG)
		eureka_answer_text(req, 400,
				   "the instance must have at most %d bytes beside its "
				   "metadata",
				   REG_EUREKA_BYTES);
	else if (r == -EINVAL)
		eureka_answer_text(req, 400, "%s", problem.text);
	else if (r < 0)
		answer_failure(req, r);
	else
		reg_writer_submit(e->writer, write);
}

/* --- what has an instance already ------------------------------------------------------------- */

/* Whether the client knows of newer data than we have, so that it must register again. */
static bool is_behind(const struct http_request *req, const char *app, const struct reg_instance *i)
{
	struct eureka_info info;
	struct str text;
	uint64_t dirty_ms;

	if (http_query(req, "lastDirtyTimestamp", &text) < 0 || !str_u64(text, &dirty_ms))
		return false;
	eureka_info_get(&info, app, i);
	return info.dirty_ms && dirty_ms > info.dirty_ms;
}

static void renew(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app;
	const struct reg_entry *entry = find_entry(e, req, &app);
	struct reg_instance i;
	int r;

	if (!entry)
		return;
	reg_entry_get(entry, &i);
	/* It shall say again what it is. */
	if (reg_instance_status(&i) == REG_UNKNOWN) {
		eureka_answer(req, 404);
		return;
	}
	r = reg_writer_renew(e->writer, str_from(app), req->params[1]);
	if (r == 0 && is_behind(req, app, &i))
		r = -ENOENT;
	if (r < 0)
		answer_failure(req, r);
	else
		eureka_answer(req, 200);
}

static void cancel(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app = eureka_app(req);
	struct reg_write *write;

	if (!app) {
		eureka_answer(req, 404);
		return;
	}
	write = write_new(req, REG_WRITE_REMOVE, app, changed);
	if (!write)
		return;
	write->instance.id = req->params[1];
	reg_writer_submit(e->writer, write);
}

/* 0, -ENOENT when it is not there, -EINVAL after answering. */
static int query_status(struct http_request *req, enum reg_status *status)
{
	struct str text;
	int r = http_query(req, "value", &text);

	if (r == -ENOENT)
		return r;
	*status = r == 0 ? reg_status_parse(text) : REG_NO_STATUS;
	if (*status != REG_NO_STATUS)
		return 0;
	eureka_answer_text(req, 400, "value must be UP, DOWN, STARTING, OUT_OF_SERVICE or UNKNOWN");
	return -EINVAL;
}

static void submit_status(struct reg_eureka *e, struct http_request *req, const char *app,
			  enum reg_status override, enum reg_status reported)
{
	struct reg_write *write = write_new(req, REG_WRITE_STATUS, app, changed);

	if (!write)
		return;
	write->instance.id = req->params[1];
	write->override = override;
	write->reported = reported;
	reg_writer_submit(e->writer, write);
}

static void set_status(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app;
	const struct reg_entry *entry;
	enum reg_status status = REG_NO_STATUS, reported = REG_NO_STATUS;
	struct reg_instance i;
	int r = query_status(req, &status);

	if (r == -ENOENT)
		eureka_answer_text(req, 400, "value is missing");
	if (r < 0)
		return;
	entry = find_entry(e, req, &app);
	if (!entry)
		return;
	reg_entry_get(entry, &i);
	r = reg_writer_renew(e->writer, str_from(app), req->params[1]);
	if (r < 0) {
		answer_failure(req, r);
		return;
	}
	if (reg_instance_status(&i) == status) {
		eureka_answer(req, 200);
		return;
	}
	if (status == REG_UNKNOWN) {
		status = REG_NO_STATUS;
		reported = REG_UNKNOWN;
	} else if (!reg_is_overridden(status, i.status, i.eureka.len > 0)) {
		/* The client's DOWN gives way until it says so again. */
		reported = REG_UNKNOWN;
	}
	submit_status(e, req, app, status, reported);
}

static void clear_status(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app;
	const struct reg_entry *entry;
	enum reg_status reported = REG_NO_STATUS;
	struct reg_instance i;
	int r;

	if (query_status(req, &reported) == -EINVAL)
		return;
	entry = find_entry(e, req, &app);
	if (!entry)
		return;
	reg_entry_get(entry, &i);
	r = reg_writer_renew(e->writer, str_from(app), req->params[1]);
	if (r < 0)
		answer_failure(req, r);
	else if (i.override == REG_NO_STATUS)
		eureka_answer(req, 200);
	else
		submit_status(e, req, app, REG_NO_STATUS, reported);
}

/* --- metadata -------------------------------------------------------------------------------- */

static bool has_key(struct str pairs, struct str key)
{
	struct str k, v;

	while (reg_metadata_next(&pairs, &k, &v)) {
		if (str_eq(k, key))
			return true;
	}
	return false;
}

/* The query's pairs; of a repeated key the first. -EINVAL, -ENOMEM. */
static int query_pairs(struct http_request *req, struct buf *out)
{
	struct str rest = req->query, pair, key, value;

	while (str_split(&rest, '&', &pair)) {
		ptrdiff_t equals = str_chr(pair, '=');
		size_t at = equals < 0 ? pair.len : (size_t)equals;

		if (pair.len == 0)
			continue;
		if (http_decode(req->arena, str_sub(pair, 0, at), true, &key) < 0 ||
		    http_decode(req->arena, str_sub(pair, MIN(at + 1, pair.len), pair.len), true,
				&value) < 0)
			return -EINVAL;
		if (!reg_is_metadata_key(key) || value.len > REG_VALUE_MAX || !json_is_text(key) ||
		    !json_is_text(value))
			return -EINVAL;
		if (has_key(buf_str(out), key))
			continue;
		buf_append(out, key.p, key.len + 1);
		buf_append(out, value.p, value.len + 1);
	}
	return buf_failed(out) ? -EINVAL : 0;
}

/* Those of the query, then those of the instance that the query does not name. */
static int merge(struct http_request *req, struct reg_instance *i)
{
	CLEANUP(cleanup_buf) struct buf pairs;
	struct str rest = i->metadata, key, value, fresh;
	size_t count = 0;
	int r;

	buf_init(&pairs, REG_METADATA_BYTES);
	r = query_pairs(req, &pairs);
	fresh = arena_str(req->arena, buf_str(&pairs));
	while (reg_metadata_next(&rest, &key, &value)) {
		if (has_key(fresh, key))
			continue;
		buf_append(&pairs, key.p, key.len + 1);
		buf_append(&pairs, value.p, value.len + 1);
	}
	if (r < 0 || buf_failed(&pairs))
		return -EINVAL;
	i->metadata = arena_str(req->arena, buf_str(&pairs));
	rest = i->metadata;
	while (reg_metadata_next(&rest, &key, &value))
		count++;
	return count <= REG_METADATA_MAX ? 0 : -EINVAL;
}

static void set_metadata(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app;
	const struct reg_entry *entry = find_entry(e, req, &app);
	struct reg_write *write;
	struct eureka_info info;

	if (!entry)
		return;
	write = write_new(req, REG_WRITE_PUT, app, changed);
	if (!write)
		return;
	/* With memory of its own: the entry is gone when it is replaced. */
	reg_entry_get(entry, &write->instance);
	write->instance = reg_instance_copy(&write->instance, req->arena);
	write->instance.override = REG_NO_STATUS; /* the stored one stays */
	if (!write->instance.id.p) {
		answer_failure(req, -ENOMEM);
		return;
	}
	if (merge(req, &write->instance) < 0) {
		eureka_answer_text(req, 400,
				   "at most %d pairs of %d bytes in all, keys of 1 to %d bytes, "
				   "values of at most %d",
				   REG_METADATA_MAX, REG_METADATA_BYTES, REG_TEXT_MAX,
				   REG_VALUE_MAX);
		return;
	}
	eureka_info_get(&info, app, &write->instance);
	eureka_read_hints(&write->instance, &info);
	reg_writer_submit(e->writer, write);
}

static void not_on_aws(struct http_request *req, void *arg)
{
	(void)arg;
	eureka_answer_text(req, 400, "this registry knows no auto-scaling groups");
}

/* --- paths ----------------------------------------------------------------------------------- */

/* The most frequent first. */
static const struct http_route routes[] = {
	{ METHOD_PUT, "/apps/{app}/{id}", renew, false },
	{ METHOD_GET, "/apps/delta", eureka_get_delta, false },
	{ METHOD_GET, "/apps", eureka_get_all, false },
	{ METHOD_GET, "/apps/{app}", eureka_get_app, false },
	{ METHOD_POST, "/apps/{app}", put_instance, false },
	{ METHOD_GET, "/apps/{app}/{id}", eureka_get_instance, false },
	{ METHOD_DELETE, "/apps/{app}/{id}", cancel, false },
	{ METHOD_PUT, "/apps/{app}/{id}/status", set_status, false },
	{ METHOD_DELETE, "/apps/{app}/{id}/status", clear_status, false },
	{ METHOD_PUT, "/apps/{app}/{id}/metadata", set_metadata, false },
	{ METHOD_GET, "/instances/{id}", eureka_get_by_id, false },
	{ METHOD_GET, "/vips/{vip}", eureka_get_vip, false },
	{ METHOD_GET, "/svips/{vip}", eureka_get_secure_vip, false },
	{ METHOD_PUT, "/asg/{name}/status", not_on_aws, false },
	{ METHOD_GET, "/status", eureka_get_status, false },
	{ METHOD_GET, "/serverinfo/statusoverrides", eureka_get_overrides, false },
};

/* The part behind the prefix; a NULL p when it is none of Eureka's paths. */
static struct str path_behind_prefix(struct str path)
{
	static const struct str prefixes[] = { STR("/eureka/v2"), STR("/eureka"), STR("/v2") };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		struct str rest;

		if (!str_starts(path, prefixes[i]))
			continue;
		rest = str_sub(path, prefixes[i].len, path.len);
		if (rest.len && rest.p[0] == '/')
			return rest;
	}
	return str_of(NULL, 0);
}

bool reg_eureka_is_for(const struct http_request *req)
{
	return path_behind_prefix(req->path).p;
}

void reg_eureka_on_request(struct reg_eureka *e, struct http_request *req)
{
	struct str path = path_behind_prefix(req->path);

	/* Java's client, npm's and Python's end some paths with one. */
	if (path.len > 1 && path.p[path.len - 1] == '/')
		path.len--;
	req->path = path;
	http_route(req, routes, ARRAY_SIZE(routes), e);
}

/* --- the whole ------------------------------------------------------------------------------- */

struct reg_eureka *reg_eureka_new(struct loop *loop, const struct reg_store *store,
				  struct reg_writer *writer)
{
	struct reg_eureka *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->loop = loop;
	e->store = store;
	e->writer = writer;
	buf_init(&e->text, 0);
	buf_init(&e->packed, 0);
	return e;
}

void reg_eureka_release(struct reg_eureka *e)
{
	reg_eureka_on_change(e);
}

void reg_eureka_free(struct reg_eureka **ep)
{
	struct reg_eureka *e = TAKE_PTR(*ep);

	if (!e)
		return;
	buf_fini(&e->text);
	buf_fini(&e->packed);
	free(e);
}
