/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service of HTTP/2 that sends the input behind its SETTINGS. First byte: the size of the pieces,
 * and it closes behind them if that is odd.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool has_world;
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct world_script script = {
		.client = STR("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			      "GET /b HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"),
		.client_piece = SIZE_MAX,
		.answer_piece = told > 1 ? bytes.len / 16 + told : SIZE_MAX,
		.answer_closes = told & 1,
	};
	struct world_result result;
	struct buf answer;

	if (!has_world)
		world_start("h2");
	has_world = true;
	buf_init(&answer, 0);
	buf_add(&answer, STR("\0\0\0\4\0\0\0\0\0"));
	buf_add(&answer, bytes);
	script.answer = buf_str(&answer);
	world_run(&script, &result);
	fuzz_check_response(buf_str(&result.client));
	world_result_fini(&result);
	buf_fini(&answer);
	return 0;
}
