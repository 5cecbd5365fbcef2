/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of gatewayd. */
#include "gateway/conf/conf.h"
#include "tests/fuzz/conf_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gw_conf conf;

	fuzz_conf(&conf, &gw_conf_object, fuzz_str(data, size));
	return 0;
}
