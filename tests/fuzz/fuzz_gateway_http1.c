/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of HTTP/1 (or one that says the preface of HTTP/2) before a gateway with a service that
 * answers well. First byte: the size of the pieces in which the client sends.
 */
#include "gateway/http/http2.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool has_world;
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct world_script script = {
		.client = bytes,
		.client_piece = told ? bytes.len / 16 + told : bytes.len + 1,
		.answer = STR("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Internal-A: 1\r\n\r\nok"),
		.answer_piece = SIZE_MAX,
	};
	struct world_result result;

	if (!has_world)
		world_start("http/1.1");
	has_world = true;
	world_run(&script, &result);
	for (size_t i = 0; i < result.service_conns; i++)
		fuzz_check_requests(buf_str(&result.service[i].received));
	if (!str_starts(bytes, STR("PRI * HTTP/2.0")))
		fuzz_check_response(buf_str(&result.client));
	world_result_fini(&result);
	return 0;
}
