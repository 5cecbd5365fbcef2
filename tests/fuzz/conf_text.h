/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration from memory: whatever it says, it is taken or there is a sentence why not. */
#pragma once

#include <errno.h>

#include "lib/conf.h"
#include "tests/fuzz/fuzz.h"

/* `out` has the root object's size. */
static inline void fuzz_conf(void *out, const struct conf_object *root, struct str text)
{
	struct conf_errors errors = { 0 };
	struct arena a;
	struct buf told;
	int rc;

	/* Files of this machine are none of the fuzzer's business. */
	if (text.len &&
	    (memmem(text.p, text.len, "$file", 5) || memmem(text.p, text.len, "\\u", 2)))
		return;
	arena_init(&a, 4096, 0);
	buf_init(&told, 0);
	rc = conf_load_text(out, root, text, &a, &errors);
	FUZZ_CHECK(rc == 0 || rc == -EINVAL);
	FUZZ_CHECK((rc == 0) == (errors.count == 0));
	conf_errors_write(&errors, "FILE", &told);
	FUZZ_CHECK(errors.count + errors.warnings == 0 || buf_len(&told));
	/* What is in force may be loaded again. */
	if (rc == 0)
		FUZZ_CHECK(conf_check_reload(root, out, out, &errors) == 0);
	conf_errors_fini(&errors);
	buf_fini(&told);
	arena_fini(&a);
}
