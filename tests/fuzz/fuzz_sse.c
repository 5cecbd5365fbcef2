/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams: the same events however the bytes come in pieces. First byte: their size. */
#include "lib/sse.h"

#include <errno.h>

#include "tests/fuzz/fuzz.h"

struct heard {
	struct buf events;
	unsigned count, stop_after;
};

static bool on_event(struct str event, struct str id, struct str data, void *arg)
{
	struct heard *h = arg;

	FUZZ_CHECK(str_chr(event, '\n') < 0 && str_chr(id, '\n') < 0 && str_chr(id, '\0') < 0);
	buf_printf(&h->events, "%zu,%zu,%zu:", event.len, id.len, data.len);
	buf_add(&h->events, event);
	buf_add(&h->events, id);
	buf_add(&h->events, data);
	return ++h->count != h->stop_after;
}

static int feed(struct heard *h, struct str bytes, size_t piece, unsigned stop_after)
{
	struct sse s;
	int rc = 0;

	*h = (struct heard) { .stop_after = stop_after };
	buf_init(&h->events, 0);
	sse_init(&s, 512);
	while (bytes.len && rc == 0) {
		size_t len = bytes.len < piece ? bytes.len : piece;
		char *copy = fuzz_copy(str_of(bytes.p, len));

		rc = sse_feed(&s, str_of(copy, len), on_event, h);
		bytes = str_sub(bytes, len, bytes.len);
		free(copy);
	}
	sse_fini(&s);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct heard whole, split;
	int rc = feed(&whole, bytes, SIZE_MAX, told >> 6);

	FUZZ_CHECK(rc == 0 || rc == -EMSGSIZE || rc == -ECANCELED);
	FUZZ_CHECK(rc != -ECANCELED || (whole.stop_after && whole.count == whole.stop_after));
	FUZZ_CHECK(feed(&split, bytes, (told & 63) + 1U, told >> 6) == rc);
	FUZZ_CHECK(str_eq(buf_str(&split.events), buf_str(&whole.events)));
	buf_fini(&whole.events);
	buf_fini(&split.events);
	return 0;
}
