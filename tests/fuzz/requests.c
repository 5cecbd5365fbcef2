/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/requests.h"

#include "lib/cleanup.h"
#include "tests/fuzz/fuzz.h"

static const struct http1_limits wide = { 1 << 17, 1 << 16, HTTP1_FIELDS_MAX };

static unsigned count_name(const struct http1_head *h, const char *name)
{
	unsigned count = 0;

	for (size_t i = 0; i < h->field_count; i++)
		count += str_ieq(h->fields[i].name, str_from(name));
	return count;
}

static void check_head(const struct http1_head *h)
{
	FUZZ_CHECK(h->minor == 1);
	FUZZ_CHECK(count_name(h, "Host") == 1);
	FUZZ_CHECK(count_name(h, "Content-Length") + count_name(h, "Transfer-Encoding") <= 1);
	/* Set by the configuration, whatever the client said of it. */
	FUZZ_CHECK(count_name(h, "X-User-Id") == 1 && count_name(h, "X_User_Id") == 0);
	FUZZ_CHECK(count_name(h, "X-Secret") == 0);
	FUZZ_CHECK(count_name(h, "X-Forwarded-For") == 1 && count_name(h, "Expect") == 0);
	FUZZ_CHECK(count_name(h, "TE") == 0 && count_name(h, "Keep-Alive") == 0);
	FUZZ_CHECK(h->asks_upgrade || count_name(h, "Upgrade") == 0);
}

/* False: it is cut off. */
static bool skip_body(struct str *bytes, const struct http1_head *h)
{
	struct http1_body body;
	enum http1_body_result result;
	struct str data;

	http1_body_init(&body, h);
	do {
		size_t consumed = 0;

		result = http1_body_next(&body, *bytes, &consumed, &data);
		*bytes = str_sub(*bytes, consumed, bytes->len);
	} while (result == HTTP1_BODY_DATA);
	FUZZ_CHECK(result != HTTP1_BODY_BAD);
	return result == HTTP1_BODY_END;
}

unsigned fuzz_check_requests(struct str bytes)
{
	static struct http1_head head;
	unsigned count = 0;

	while (bytes.len) {
		struct http1_scan scan = { 0 };
		long len = http1_parse_request(&head, &scan, bytes, &wide);

		/* To HTTP/1.0 without a Host that is what must be sent on (RFC 9112 3.2); we would
		 * not take it. */
		if (len < 0 && str_chr(bytes, '\n') >= 0 &&
		    str_starts(str_sub(bytes, (size_t)str_chr(bytes, '\n') + 1, bytes.len),
			       STR("Host: \r\n")))
			return count;
		FUZZ_CHECK(len >= 0);
		if (len == 0)
			return count;
		check_head(&head);
		bytes = str_sub(bytes, (size_t)len, bytes.len);
		if (!skip_body(&bytes, &head))
			return count;
		count++;
		if (head.asks_upgrade)
			return count; /* what follows may be a tunnel's */
	}
	return count;
}

void fuzz_check_response(struct str bytes)
{
	static struct http1_head head;
	struct http1_scan scan = { 0 };
	long len = bytes.len ? http1_parse_response(&head, &scan, bytes, &wide, METHOD_GET) : 0;

	FUZZ_CHECK(len >= 0);
	for (size_t i = 0; len > 0 && i < head.field_count; i++)
		FUZZ_CHECK(!str_istarts(head.fields[i].name, STR("X-Internal-")));
}
