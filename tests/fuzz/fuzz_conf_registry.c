/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of registryd. */
#include "registry/conf.h"
#include "tests/fuzz/conf_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct reg_conf conf;

	fuzz_conf(&conf, &reg_conf_object, fuzz_str(data, size));
	return 0;
}
