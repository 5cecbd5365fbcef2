/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/page.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/loop.h"
#include "registry/api.h"

#define CHANGES_DEFAULT 50
#define CHANGES_MAX     1000

/* registry/page.html as it is; module.mk names it as what this file is made from. */
extern const char reg_page[];
__asm__(".pushsection .rodata\n"
	".global reg_page\n"
	"reg_page:\n"
	".incbin \"registry/page.html\"\n"
	".byte 0\n"
	".popsection\n");

/* "'sha256-…'" of what stands between the tags, for the policy: nothing else is run. */
static void add_hash(struct buf *out, const char *begin_tag, const char *end_tag)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[2 * EVP_MAX_MD_SIZE];
	const char *from = strstr(reg_page, begin_tag);
	const char *to = from ? strstr(from, end_tag) : NULL;

	if (!to)
		return;
	from += strlen(begin_tag);
	if (!EVP_Digest(from, (size_t)(to - from), digest, NULL, EVP_sha256(), NULL))
		return;
	EVP_EncodeBlock((unsigned char *)text, digest, 32);
	buf_addz(out, "'sha256-");
	buf_addz(out, text);
	buf_addz(out, "'");
}

/* Strangers write what it shows. Should any of it ever become markup, this makes it harmless. */
static const char *policy(void)
{
	static char text[512];
	struct buf out;

	if (text[0])
		return text;
	buf_init(&out, sizeof(text) - 1);
	buf_addz(&out, "default-src 'none'; script-src ");
	add_hash(&out, "<script>", "</script>");
	buf_addz(&out, "; style-src ");
	add_hash(&out, "<style>", "</style>");
	buf_addz(&out, "; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
		       "frame-ancestors 'none'");
	if (!buf_failed(&out))
		memcpy(text, buf_data(&out), buf_len(&out));
	buf_fini(&out);
	return text;
}

void reg_page_get(struct http_request *req, void *arg)
{
	(void)arg;
	http_add_header(req, "Content-Security-Policy", str_from(policy()));
	http_add_header(req, "X-Content-Type-Options", STR("nosniff"));
	http_add_header(req, "Referrer-Policy", STR("no-referrer"));
	http_add_header(req, "Cache-Control", STR("no-cache"));
	http_respond(req, 200, "text/html; charset=utf-8", str_from(reg_page));
}

void reg_page_leases(struct http_request *req, void *arg)
{
	const struct reg_api *api = arg;
	uint64_t now_ms = loop_now_ms(api->loop);
	char name[REG_APP_MAX + 1];
	struct buf out;
	struct json_writer w = json_writer(&out);
	const struct reg_app *app;

	if (!reg_app_name(req->params[0], name)) {
		http_problem_field(req, 400, "app", "is no name of an app");
		return;
	}
	app = reg_store_app(api->store, str_from(name));
	buf_init(&out, 0);
	json_open(&w, NULL, '{');
	json_addz(&w, "app", name);
	json_open(&w, "leases", '[');
	for (const struct reg_entry *e = app ? reg_app_next(app, NULL) : NULL; e;
	     e = reg_app_next(app, e)) {
		struct reg_instance i;

		reg_entry_get(e, &i);
		json_open(&w, NULL, '{');
		json_add_str(&w, "id", i.id);
		json_add_u64(&w, "age_ms", now_ms - reg_entry_renewed_ms(e));
		json_add_bool(&w, "held", reg_entry_is_held(e));
		json_close(&w, '}');
	}
	json_close(&w, ']');
	json_close(&w, '}');
	if (buf_failed(&out))
		http_problem(req, 503, "out of memory");
	else
		http_respond_json(req, 200, buf_str(&out));
	buf_fini(&out);
}

/* How many are asked for. 0 after answering 400. */
static uint64_t read_limit(struct http_request *req)
{
	uint64_t limit = CHANGES_DEFAULT;
	struct str text;
	int r = http_query(req, "limit", &text);

	if (r == -ENOENT)
		return limit;
	if (r == 0 && str_u64(text, &limit) && limit >= 1 && limit <= CHANGES_MAX)
		return limit;
	http_problem_field(req, 400, "limit", "must be from 1 to %d", CHANGES_MAX);
	return 0;
}

static void write_change(struct json_writer *w, const struct reg_entry *e, uint64_t now_ms)
{
	static const char *const names[] = { "put", "delete", "status" };
	struct reg_instance i;

	reg_entry_get(e, &i);
	json_open(w, NULL, '{');
	json_addz(w, "event", names[reg_entry_change(e)]);
	json_add_u64(w, "age_ms", now_ms - reg_entry_changed_ms(e));
	json_add_u64(w, "index", i.index);
	json_addz(w, "app", reg_entry_app(e));
	json_add_str(w, "id", i.id);
	json_addz(w, "status", reg_status_name(reg_instance_status(&i)));
	json_close(w, '}');
}

/* The latest change of each instance, the newest first; of those that left as long as they are
 * remembered. */
void reg_page_changes(struct http_request *req, void *arg)
{
	const struct reg_api *api = arg;
	uint64_t limit = read_limit(req), count = 0;
	struct json_writer w;
	struct buf *out;

	if (!limit)
		return;
	out = http_scratch(req);
	w = json_writer(out);
	json_open(&w, NULL, '{');
	json_add_u64(&w, "index", reg_store_index(api->store));
	json_open(&w, "changes", '[');
	for (const struct reg_entry *e = reg_store_previous_change(api->store, NULL);
	     e && count++ < limit; e = reg_store_previous_change(api->store, e))
		write_change(&w, e, loop_now_ms(api->loop));
	json_close(&w, ']');
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}
