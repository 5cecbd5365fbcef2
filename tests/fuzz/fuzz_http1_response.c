/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses of services, heads and bodies: the same reading however the bytes come. First byte: the
 * size of the pieces; second: the method that was asked.
 */
#include "lib/cleanup.h"
#include "lib/http1.h"
#include "tests/fuzz/fuzz.h"

static const struct http1_limits limits = { .head_bytes = 2048, .target_bytes = 256, .fields = 24 };

struct outcome {
	long head_len; /* of the final head, or what was wrong */
	unsigned status, interim;
	enum http1_framing framing;
	enum http1_body_result end;
	bool keeps_alive;
	struct buf content;
};

static void check_head(const struct http1_head *h, enum http_method method)
{
	FUZZ_CHECK(h->status >= 100 && h->status <= 999 && h->field_count <= limits.fields);
	for (size_t i = 0; i < h->field_count; i++) {
		FUZZ_CHECK(http_is_token(h->fields[i].name));
		FUZZ_CHECK(http_is_field_value(h->fields[i].value));
	}
	if (method == METHOD_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
		FUZZ_CHECK(h->framing == HTTP1_NO_BODY);
	if (h->framing == HTTP1_CHUNKED)
		FUZZ_CHECK(!http_find(h->fields, h->field_count, HTTP_CONTENT_LENGTH));
}

static size_t take_body(struct outcome *o, struct http1_body *body, struct str bytes)
{
	struct str data;
	size_t at = 0, consumed;

	do {
		consumed = 0;
		o->end = http1_body_next(body, str_sub(bytes, at, bytes.len), &consumed, &data);
		FUZZ_CHECK(consumed <= bytes.len - at);
		at += consumed;
		if (o->end == HTTP1_BODY_DATA)
			buf_add(&o->content, data);
	} while (o->end == HTTP1_BODY_DATA);
	return at;
}

/* As a client reads: what came is kept until it is understood. */
static void receive(struct outcome *o, struct str bytes, size_t piece, enum http_method method)
{
	static struct http1_head head;
	struct http1_scan scan = { 0 };
	struct http1_body body;
	struct buf in;

	*o = (struct outcome) { .end = HTTP1_BODY_MORE };
	buf_init(&o->content, 0);
	buf_init(&in, 0);
	for (size_t at = 0; at < bytes.len && o->head_len >= 0 && o->end == HTTP1_BODY_MORE;) {
		size_t len = MIN(bytes.len - at, piece);

		buf_append(&in, bytes.p + at, len);
		at += len;
		while (o->status < 200 && buf_len(&in)) {
			long n = http1_parse_response(&head, &scan, buf_str(&in), &limits, method);

			FUZZ_CHECK(n <= (long)buf_len(&in));
			if (n == 0)
				break;
			o->head_len = n;
			if (n < 0)
				break;
			check_head(&head, method);
			scan = (struct http1_scan) { 0 };
			buf_consume(&in, (size_t)n);
			o->status = head.status;
			o->interim += head.status < 200;
			o->framing = head.framing;
			o->keeps_alive = head.keeps_alive;
			http1_body_init(&body, &head);
		}
		if (o->status >= 200 && o->head_len > 0)
			buf_consume(&in, take_body(o, &body, buf_str(&in)));
	}
	buf_fini(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	size_t piece = fuzz_take(&bytes) + 1U;
	enum http_method method = fuzz_take(&bytes) & 1 ? METHOD_HEAD : METHOD_GET;
	struct outcome whole, split;

	receive(&whole, bytes, SIZE_MAX, method);
	receive(&split, bytes, piece, method);
	FUZZ_CHECK(whole.head_len < 0 ? split.head_len < 0 : split.head_len == whole.head_len);
	FUZZ_CHECK(whole.interim == split.interim);
	if (whole.head_len > 0) {
		FUZZ_CHECK(whole.status == split.status && whole.framing == split.framing);
		FUZZ_CHECK(whole.keeps_alive == split.keeps_alive && whole.end == split.end);
		FUZZ_CHECK(str_eq(buf_str(&whole.content), buf_str(&split.content)));
	}
	buf_fini(&whole.content);
	buf_fini(&split.content);
	return 0;
}
