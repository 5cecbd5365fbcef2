/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request heads, as the gateway reads them and changes them. The same verdict however the bytes
 * come; what is accepted, written anew and read again, is the same; and once the header rules were
 * applied nothing is left of what must not reach a service.
 */
#include "gateway/http/headers.h"
#include "lib/cleanup.h"
#include "lib/http1.h"
#include "tests/fuzz/fuzz.h"

#define SPARE 8

static const struct http1_limits limits = { .head_bytes = 2048, .target_bytes = 256, .fields = 24 };

/* Given byte by byte, or in pieces, each in memory of its own. */
static long parse_pieces(struct str bytes, size_t piece)
{
	struct http1_scan scan = { 0 };
	struct http1_head head;
	long len = 0;

	for (size_t have = 0; len == 0 && have < bytes.len;) {
		char *copy;

		have = MIN(have + piece, bytes.len);
		copy = fuzz_copy(str_of(bytes.p, have));
		len = http1_parse_request(&head, &scan, str_of(copy, have), &limits);
		free(copy);
	}
	return len;
}

static void check_accepted(const struct http1_head *h)
{
	FUZZ_CHECK(http_is_token(h->method) && http1_knows_method(h->method));
	FUZZ_CHECK(h->target.len <= limits.target_bytes && h->field_count <= limits.fields);
	for (size_t i = 0; i < h->target.len; i++)
		FUZZ_CHECK((unsigned char)h->target.p[i] > 0x20 && h->target.p[i] != 0x7f);
	FUZZ_CHECK(h->path.len && (h->path.p[0] == '/' || str_eqz(h->path, "*")));
	FUZZ_CHECK(str_chr(h->path, '?') < 0 && str_chr(h->path, '#') < 0);
	FUZZ_CHECK(h->authority.len ? http_is_host(h->authority) : true);
	FUZZ_CHECK(h->minor == 0 || http_find(h->fields, h->field_count, HTTP_HOST));
	for (size_t i = 0; i < h->field_count; i++) {
		FUZZ_CHECK(http_is_token(h->fields[i].name));
		FUZZ_CHECK(http_is_field_value(h->fields[i].value));
		FUZZ_CHECK(h->fields[i].id == http_name_id(h->fields[i].name));
	}
	/* One way to read where it ends. */
	if (http_find(h->fields, h->field_count, HTTP_TRANSFER_ENCODING)) {
		FUZZ_CHECK(h->framing == HTTP1_CHUNKED && h->minor == 1);
		FUZZ_CHECK(!http_find(h->fields, h->field_count, HTTP_CONTENT_LENGTH));
	}
	FUZZ_CHECK(h->framing != HTTP1_UNTIL_CLOSE);
}

static void write_head(const struct http1_head *h, struct buf *out)
{
	buf_add(out, h->method);
	buf_addz(out, " ");
	buf_add(out, h->target);
	buf_printf(out, " HTTP/1.%u\r\n", h->minor);
	for (size_t i = 0; i < h->field_count; i++) {
		buf_add(out, h->fields[i].name);
		buf_addz(out, ": ");
		buf_add(out, h->fields[i].value);
		buf_addz(out, "\r\n");
	}
	buf_addz(out, "\r\n");
}

static void check_same_again(const struct http1_head *h)
{
	static struct http1_head again;
	struct http1_limits wide = { 1 << 16, 1 << 16, HTTP1_FIELDS_MAX };
	struct http1_scan scan = { 0 };
	struct buf text;

	buf_init(&text, 0);
	write_head(h, &text);
	FUZZ_CHECK(http1_parse_request(&again, &scan, buf_str(&text), &wide) ==
		   (long)buf_len(&text));
	FUZZ_CHECK(str_eq(again.method, h->method) && again.method_id == h->method_id);
	FUZZ_CHECK(str_eq(again.target, h->target) && str_eq(again.authority, h->authority));
	FUZZ_CHECK(str_eq(again.path, h->path) && str_eq(again.query, h->query));
	FUZZ_CHECK(again.minor == h->minor && again.framing == h->framing);
	FUZZ_CHECK(again.content_length == h->content_length);
	FUZZ_CHECK(again.keeps_alive == h->keeps_alive && again.asks_upgrade == h->asks_upgrade);
	FUZZ_CHECK(again.expects_continue == h->expects_continue);
	FUZZ_CHECK(again.field_count == h->field_count);
	for (size_t i = 0; i < h->field_count; i++) {
		FUZZ_CHECK(str_eq(again.fields[i].name, h->fields[i].name));
		FUZZ_CHECK(str_eq(again.fields[i].value, h->fields[i].value));
	}
	buf_fini(&text);
}

/* A service may fold names so: case aside, "_" is "-". */
static bool folds_to(struct str name, const char *other)
{
	if (name.len != strlen(other))
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if ((name.p[i] == '_' ? '-' : tolower((unsigned char)name.p[i])) != other[i])
			return false;
	}
	return true;
}

static void check_rules(const struct http1_head *h)
{
	static const struct str ours[] = { STR("X-User-Id") };
	static const struct conf_pair set[] = { { STR("X-User-Id"), STR("u1") } };
	static const struct str removed[] = { STR("X-Internal-*") };
	const struct headers_spec spec = {
		.set = set, .set_count = 1, .remove = removed, .remove_count = 1
	};
	const struct headers_spec *specs[] = { &spec };
	struct http_field fields[HTTP1_FIELDS_MAX + SPARE];
	struct headers list = { .fields = fields, .max = ARRAY_SIZE(fields) };
	struct arena a;
	size_t own = 0;

	arena_init(&a, 4096, 0);
	memcpy(fields, h->fields, h->field_count * sizeof(*fields));
	list.count = h->field_count;
	headers_strip_hop_by_hop(&list);
	headers_guard_strip(headers_guard_new(&a, ours, ARRAY_SIZE(ours)), &list, true);
	for (size_t i = 0; i < list.count; i++)
		FUZZ_CHECK(!folds_to(list.fields[i].name, "x-user-id"));
	FUZZ_CHECK(headers_rules_apply(headers_rules_new(&a, specs, 1, STR("")), &list, NULL));
	for (size_t i = 0; i < list.count; i++) {
		struct str name = list.fields[i].name;

		own += folds_to(name, "x-user-id");
		FUZZ_CHECK(!folds_to(name, "connection") && !folds_to(name, "transfer-encoding"));
		FUZZ_CHECK(!folds_to(name, "upgrade") && !folds_to(name, "te"));
		FUZZ_CHECK(!str_istarts(name, STR("X-Internal-")));
	}
	FUZZ_CHECK(own == 1);
	arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct http1_head head;
	struct str bytes = fuzz_str(data, size);
	size_t piece = fuzz_take(&bytes) + 1U;
	struct http1_scan scan = { 0 };
	char *copy = fuzz_copy(bytes);
	long len = http1_parse_request(&head, &scan, str_of(copy, bytes.len), &limits);
	long split = parse_pieces(bytes, piece);

	FUZZ_CHECK(len <= (long)bytes.len && len >= -599);
	/* A head that is wrong in two ways may be refused for either. */
	FUZZ_CHECK(len < 0 ? split < 0 : split == len);
	if (bytes.len <= 512) {
		split = parse_pieces(bytes, 1);
		FUZZ_CHECK(len < 0 ? split < 0 : split == len);
	}
	if (len < 0)
		FUZZ_CHECK(head.problem);
	if (len > 0) {
		check_accepted(&head);
		check_same_again(&head);
		check_rules(&head);
	}
	free(copy);
	return 0;
}
