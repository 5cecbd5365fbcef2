/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/problem.h"

#include "lib/json.h"

void problem_send(struct request *r, unsigned status, enum request_reason reason,
		  const char *detail)
{
	struct json_writer w;
	struct buf body;

	r->reason = reason;
	if (r->has_head) {
		r->down->abort(r);
		return;
	}
	/* Heads that could not be read never came to the stage that names requests. */
	if (!r->request_id.len)
		request_make_id(r);
	buf_init(&body, 4096);
	w = json_writer(&body);
	json_open(&w, NULL, '{');
	json_addz(&w, "type", "about:blank");
	json_add_u64(&w, "status", status);
	json_addz(&w, "title", http_reason(status));
	json_addz(&w, "detail", detail);
	if (r->request_id.len)
		json_add_str(&w, "request_id", r->request_id);
	json_close(&w, '}');
	request_add_extra(r, STR("Cache-Control"), STR("no-store"));
	response_send(r, status, STR("application/problem+json"), buf_str(&body));
	buf_fini(&body);
}
