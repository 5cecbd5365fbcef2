/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service of HTTP/1 that answers with the input, to a GET, a HEAD, a POST or a WebSocket
 * handshake of a client (first byte), in pieces of a size (second byte), and closes behind it (if
 * that is odd).
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/world.h"

static const struct str clients[] = {
	STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
	STR("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
	STR("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: "
	    "a\r\n\r\n"),
	STR("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	    "\x81\x82\1\2\3\4\x65\x66"),
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool has_world;
	struct str bytes = fuzz_str(data, size);
	const struct str *client = &clients[fuzz_take(&bytes) & 3];
	uint8_t told = fuzz_take(&bytes);
	struct world_script script = {
		.client = *client,
		.client_piece = SIZE_MAX,
		.answer = bytes,
		.answer_piece = told > 1 ? bytes.len / 16 + told : SIZE_MAX,
		.answer_closes = told & 1,
	};
	struct world_result result;

	if (!has_world)
		world_start("http/1.1");
	has_world = true;
	world_run(&script, &result);
	for (size_t i = 0; i < result.service_conns; i++)
		fuzz_check_requests(buf_str(&result.service[i].received));
	fuzz_check_response(buf_str(&result.client));
	world_result_fini(&result);
	return 0;
}
