/* SPDX-License-Identifier: Apache-2.0 */
/* The path normaliser. First byte: what is allowed. */
#include "gateway/http/path.h"

#include <errno.h>

#include "tests/fuzz/fuzz.h"

static bool holds(struct str s, const char *needle)
{
	return s.len && memmem(s.p, s.len, needle, strlen(needle));
}

static bool has_dot_segment(struct str path)
{
	struct str segment;

	while (str_split(&path, '/', &segment)) {
		/* Some services cut parameters off first. */
		if (str_chr(segment, ';') >= 0)
			segment.len = (size_t)str_chr(segment, ';');
		if (str_eqz(segment, ".") || str_eqz(segment, ".."))
			return true;
	}
	return false;
}

static void check_bytes(struct str path, unsigned allow)
{
	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.p[i];

		FUZZ_CHECK(c > 0x20 && c != 0x7f && c != '?' && c != '#');
		FUZZ_CHECK(c != '\\');
		FUZZ_CHECK(c != ';' || allow & PATH_ALLOW_PARAMETERS);
		if (c == '%') {
			FUZZ_CHECK(i + 2 < path.len && isxdigit((unsigned char)path.p[i + 1]) &&
				   isxdigit((unsigned char)path.p[i + 2]));
			FUZZ_CHECK(!islower((unsigned char)path.p[i + 1]) &&
				   !islower((unsigned char)path.p[i + 2]));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size), out, again;
	unsigned allow = fuzz_take(&bytes) & 15;
	char *copy = fuzz_copy(bytes);
	const char *problem = NULL;
	struct arena a;
	int rc;

	arena_init(&a, 1024, 1 << 20);
	rc = path_normalise(&out, str_of(copy, bytes.len), allow, &a, &problem);
	if (rc == -EINVAL)
		FUZZ_CHECK(problem);
	if (rc == 0) {
		FUZZ_CHECK(out.len && out.p[0] == '/');
		FUZZ_CHECK(!holds(out, "//"));
		FUZZ_CHECK(!has_dot_segment(out));
		FUZZ_CHECK(!holds(out, "%2E") && !holds(out, "%41"));
		FUZZ_CHECK(allow & PATH_ALLOW_NUL || !holds(out, "%00"));
		FUZZ_CHECK(allow & PATH_ALLOW_ENCODED_SLASH || !holds(out, "%2F"));
		FUZZ_CHECK(allow & PATH_ALLOW_BACKSLASH || !holds(out, "%5C"));
		check_bytes(out, allow);
		FUZZ_CHECK(path_normalise(&again, out, allow, &a, &problem) == 0);
		FUZZ_CHECK(str_eq(again, out));
	}
	arena_fini(&a);
	free(copy);
	return 0;
}
