/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunked bodies, split where the first byte says (every so many bytes), one by one, and not at
 * all: the same verdict, the same content, the same trailers, the same end.
 */
#include "lib/cleanup.h"
#include "lib/http1.h"
#include "tests/fuzz/fuzz.h"

struct outcome {
	enum http1_body_result result;
	size_t consumed;
	struct buf content, trailers;
};

static void decode(struct outcome *o, struct str bytes, size_t piece)
{
	struct http1_head head = { .framing = HTTP1_CHUNKED };
	struct http1_body body;

	*o = (struct outcome) { .result = HTTP1_BODY_MORE };
	buf_init(&o->content, 0);
	buf_init(&o->trailers, 0);
	http1_body_init(&body, &head);
	body.trailers = &o->trailers;
	while (o->consumed < bytes.len && o->result == HTTP1_BODY_MORE) {
		struct str left = str_sub(bytes, o->consumed, bytes.len);
		size_t len = left.len < piece ? left.len : piece;
		char *copy = fuzz_copy(str_of(left.p, len));
		size_t at = 0;

		do {
			size_t consumed = 0;
			struct str data = { NULL, 0 };

			o->result = http1_body_next(&body, str_of(copy + at, len - at), &consumed,
						    &data);
			FUZZ_CHECK(consumed <= len - at);
			at += consumed;
			if (o->result == HTTP1_BODY_DATA) {
				FUZZ_CHECK(data.len && data.p >= copy &&
					   data.p + data.len <= copy + len);
				buf_add(&o->content, data);
			}
		} while (o->result == HTTP1_BODY_DATA);
		FUZZ_CHECK(o->result != HTTP1_BODY_MORE || at == len);
		o->consumed += at;
		free(copy);
	}
}

static void outcome_fini(struct outcome *o)
{
	buf_fini(&o->content);
	buf_fini(&o->trailers);
}

static void check_same(struct str bytes, const struct outcome *whole, size_t piece)
{
	struct outcome split;

	decode(&split, bytes, piece);
	FUZZ_CHECK(split.result == whole->result);
	FUZZ_CHECK(str_eq(buf_str(&split.content), buf_str(&whole->content)));
	if (whole->result == HTTP1_BODY_END) {
		FUZZ_CHECK(split.consumed == whole->consumed);
		FUZZ_CHECK(str_eq(buf_str(&split.trailers), buf_str(&whole->trailers)));
	}
	outcome_fini(&split);
}

/* Written as we write chunks, the content must come back. */
static void check_round_trip(struct str content)
{
	char size_line[HTTP1_CHUNK_HEAD_MAX];
	struct outcome again;
	struct buf out;

	buf_init(&out, 0);
	for (size_t at = 0; at < content.len; at += 1000) {
		struct str piece = str_of(content.p + at, MIN(content.len - at, (size_t)1000));

		buf_append(&out, size_line, http1_chunk_head(size_line, piece.len));
		buf_add(&out, piece);
		buf_addz(&out, "\r\n");
	}
	buf_addz(&out, "0\r\n\r\n");
	decode(&again, buf_str(&out), SIZE_MAX);
	FUZZ_CHECK(again.result == HTTP1_BODY_END && again.consumed == buf_len(&out));
	FUZZ_CHECK(str_eq(buf_str(&again.content), content));
	outcome_fini(&again);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size), lines;
	size_t piece = fuzz_take(&bytes) + 1U;
	struct http_field field;
	struct outcome whole;

	decode(&whole, bytes, SIZE_MAX);
	check_same(bytes, &whole, piece);
	check_same(bytes, &whole, 1);
	if (whole.result == HTTP1_BODY_END) {
		check_round_trip(buf_str(&whole.content));
		lines = buf_str(&whole.trailers);
		while (http1_next_trailer(&lines, &field)) {
			FUZZ_CHECK(http_is_token(field.name));
			FUZZ_CHECK(str_chr(field.value, '\r') < 0 &&
				   str_chr(field.value, '\n') < 0 &&
				   str_chr(field.value, '\0') < 0);
		}
	}
	outcome_fini(&whole);
	return 0;
}
