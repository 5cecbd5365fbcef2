/* SPDX-License-Identifier: Apache-2.0 */
/* Fetches of Eureka's API: lists, deltas, single instances. */
#include <errno.h>

#include "lib/clock.h"
#include "lib/gzip.h"
#include "lib/loop.h"
#include "registry/eureka/private.h"

#define DELTA_MS     180000 /* clients fetch each 30 s; a change is in so many deltas */
#define DELTA_OLD    1000   /* a delta is written anew after this, for what fell out of it */
#define LIST_OLD     10000  /* and a list, for its times of renewal */
#define DOCUMENT_MAX (256UL << 20)
#define KEEP         (1UL << 20)
#define SHARE_MIN    16384 /* answers from this size on are written once for all readers */

static bool contains(struct str s, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= s.len; i++) {
		if (strncasecmp(s.p + i, word, len) == 0)
			return true;
	}
	return false;
}

/* A writer of what the client asks for: XML unless it says json. */
static struct eureka_writer writer_for(struct reg_eureka *e, const struct http_request *req)
{
	buf_reset(&e->text, KEEP);
	e->text.max = DOCUMENT_MAX;
	return (struct eureka_writer) {
		.out = &e->text,
		.is_xml = !contains(http_header(req, "Accept"), "json"),
		.is_compact = contains(http_header(req, "X-Eureka-Accept"), "compact"),
		.now_ms = loop_now_ms(e->loop),
		.wall_ms = clock_wall_ms(),
	};
}

static const char *type_of(const struct eureka_writer *w)
{
	return w->is_xml ? "application/xml" : "application/json";
}

static void answer_too_large(struct http_request *req)
{
	http_add_header(req, "Retry-After", STR("5"));
	eureka_answer_text(req, 503, "the list cannot be written now");
}

static void answer_document(struct http_request *req, const struct eureka_writer *w)
{
	if (buf_failed(w->out))
		answer_too_large(req);
	else
		http_respond(req, 200, type_of(w), buf_str(w->out));
}

/* What is not known yet must not look empty: clients would drop everything. */
static bool is_loaded(const struct reg_eureka *e, struct http_request *req)
{
	if (e->writer->is_loaded)
		return true;
	http_add_header(req, "Retry-After", STR("1"));
	eureka_answer_text(req, 403, "the registry has not read its store yet");
	return false;
}

/* --- the lists that every client fetches ------------------------------------------------------ */

static int write_list(struct reg_eureka *e, struct eureka_writer *w, enum eureka_list list)
{
	uint64_t now_ms = w->now_ms;

	if (list == EUREKA_ALL)
		eureka_write_all(w, e->store);
	else if (eureka_write_delta(w, e->store, now_ms > DELTA_MS ? now_ms - DELTA_MS : 0) < 0)
		return -ENOMEM;
	return buf_failed(w->out) ? -ENOMEM : 0;
}

static void answer_shared(struct http_request *req, const char *type, bool is_packed,
			  struct http_shared *bytes)
{
	if (is_packed)
		http_add_header(req, "Content-Encoding", STR("gzip"));
	http_respond_shared(req, 200, type, bytes);
}

static void get_list(struct reg_eureka *e, struct http_request *req, enum eureka_list list)
{
	struct eureka_writer w = writer_for(e, req);
	bool is_packed = contains(http_header(req, "Accept-Encoding"), "gzip");
	struct eureka_rendering *kept = &e->renderings[list][w.is_xml][w.is_compact][is_packed];
	uint64_t old_ms = list == EUREKA_DELTA ? DELTA_OLD : LIST_OLD;
	struct str body;

	if (!is_loaded(e, req))
		return;
	if (kept->bytes && w.now_ms - kept->made_ms < old_ms) {
		answer_shared(req, type_of(&w), is_packed, kept->bytes);
		return;
	}
	http_shared_put(&kept->bytes);
	if (write_list(e, &w, list) < 0) {
		answer_too_large(req);
		return;
	}
	body = buf_str(&e->text);
	if (is_packed) {
		buf_reset(&e->packed, KEEP);
		if (gzip_compress(&e->packed, body) < 0) {
			answer_too_large(req);
			return;
		}
		body = buf_str(&e->packed);
	}
	if (buf_len(&e->text) < SHARE_MIN) {
		if (is_packed)
			http_add_header(req, "Content-Encoding", STR("gzip"));
		http_respond(req, 200, type_of(&w), body);
		return;
	}
	kept->bytes = http_shared_new(req, body);
	kept->made_ms = w.now_ms;
	if (kept->bytes)
		answer_shared(req, type_of(&w), is_packed, kept->bytes);
	else
		answer_too_large(req);
}

void eureka_get_all(struct http_request *req, void *arg)
{
	get_list(arg, req, EUREKA_ALL);
}

void eureka_get_delta(struct http_request *req, void *arg)
{
	get_list(arg, req, EUREKA_DELTA);
}

void reg_eureka_on_change(struct reg_eureka *e)
{
	for (int list = 0; list < EUREKA_LISTS; list++) {
		for (int form = 0; form < 8; form++)
			http_shared_put(
				&e->renderings[list][form >> 2][form >> 1 & 1][form & 1].bytes);
	}
}

/* --- parts ----------------------------------------------------------------------------------- */

void eureka_get_app(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	struct eureka_writer w = writer_for(e, req);
	const char *name = eureka_app(req);
	const struct reg_app *app = name ? reg_store_app(e->store, str_from(name)) : NULL;

	if (!is_loaded(e, req))
		return;
	if (!app || reg_app_count(app) == 0) {
		eureka_answer(req, 404);
		return;
	}
	eureka_write_app(&w, app);
	answer_document(req, &w);
}

static void answer_entry(struct reg_eureka *e, struct http_request *req,
			 const struct reg_entry *entry)
{
	struct eureka_writer w = writer_for(e, req);

	if (!entry) {
		eureka_answer(req, 404);
		return;
	}
	eureka_write_instance(&w, entry);
	answer_document(req, &w);
}

void eureka_get_instance(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const char *app = eureka_app(req);

	if (is_loaded(e, req))
		answer_entry(e, req,
			     app ? reg_store_find(e->store, str_from(app), req->params[1]) : NULL);
}

void eureka_get_by_id(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	const struct reg_entry *found = NULL;

	if (!is_loaded(e, req))
		return;
	for (const struct reg_app *app = reg_store_next_app(e->store, NULL); app && !found;
	     app = reg_store_next_app(e->store, app))
		found = reg_store_find(e->store, str_from(reg_app_get_name(app)), req->params[0]);
	answer_entry(e, req, found);
}

static void get_vip(struct reg_eureka *e, struct http_request *req, bool is_secure)
{
	struct eureka_writer w = writer_for(e, req);

	if (!is_loaded(e, req))
		return;
	eureka_write_vip(&w, e->store, req->params[0], is_secure);
	answer_document(req, &w);
}

void eureka_get_vip(struct http_request *req, void *arg)
{
	get_vip(arg, req, false);
}

void eureka_get_secure_vip(struct http_request *req, void *arg)
{
	get_vip(arg, req, true);
}

void eureka_get_status(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	struct eureka_writer w = writer_for(e, req);

	eureka_write_server(&w, e->store);
	answer_document(req, &w);
}

void eureka_get_overrides(struct http_request *req, void *arg)
{
	struct reg_eureka *e = arg;
	struct buf *out = http_scratch(req);

	if (!is_loaded(e, req))
		return;
	eureka_write_overrides(out, e->store);
	if (buf_failed(out))
		answer_too_large(req);
	else
		http_respond_json(req, 200, buf_str(out));
}
