/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY protocol's header, versions 1 and 2. */
#include <errno.h>

#include "lib/proxy_protocol.h"
#include "tests/fuzz/fuzz.h"

static bool is_same(const struct proxy_header *a, const struct proxy_header *b)
{
	if (a->is_local || b->is_local)
		return a->is_local == b->is_local;
	return net_addr_eq(&a->from, &b->from) && net_addr_eq(&a->to, &b->to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = fuzz_copy(fuzz_str(data, size));
	struct proxy_header whole, part;
	long len = proxy_header_parse(&whole, copy, size);

	FUZZ_CHECK(len == -EAGAIN || len == -EPROTO || (len > 0 && len <= (long)size));
	FUZZ_CHECK(len <= (long)PROXY_HEADER_MAX);
	FUZZ_CHECK(len != -EAGAIN || size < PROXY_HEADER_MAX);
	/* However it comes in pieces: not a byte less is enough, and the pieces say the same. */
	for (size_t n = 0; n <= size && n <= 600; n++) {
		char *piece = fuzz_copy(str_of(copy, n));
		long got = proxy_header_parse(&part, piece, n);

		if (len > 0)
			FUZZ_CHECK(n < (size_t)len ? got == -EAGAIN : got == len);
		else if (len == -EAGAIN)
			FUZZ_CHECK(got == -EAGAIN);
		else
			FUZZ_CHECK(got == -EAGAIN || got == -EPROTO);
		FUZZ_CHECK(got <= 0 || is_same(&part, &whole));
		free(piece);
	}
	if (len > 0 && !whole.is_local) {
		FUZZ_CHECK(whole.from.len && whole.to.len);
	}
	free(copy);
	return 0;
}
