/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of HTTP/2 by prior knowledge: the input is what follows the preface and an empty
 * SETTINGS frame. First byte: the size of the pieces.
 */
#include "gateway/http/http2.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/world.h"

#define HELLO HTTP2_PREFACE "\0\0\0\4\0\0\0\0\0"

/* What we send is frames of known kinds and of no more than the agreed size. */
static void check_frames(struct str bytes)
{
	while (bytes.len >= 9) {
		const unsigned char *head = (const unsigned char *)bytes.p;
		size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

		FUZZ_CHECK(len <= 16384 && head[3] <= 9);
		if (bytes.len < 9 + len)
			return;
		bytes = str_sub(bytes, 9 + len, bytes.len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool has_world;
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct world_script script = {
		.answer = STR(
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
			"T: 1\r\n\r\n"),
		.answer_piece = SIZE_MAX,
	};
	struct world_result result;
	struct buf client;

	if (!has_world)
		world_start("http/1.1");
	has_world = true;
	buf_init(&client, 0);
	buf_add(&client, STR(HELLO));
	buf_add(&client, bytes);
	script.client = buf_str(&client);
	script.client_piece = told ? bytes.len / 16 + told : SIZE_MAX;
	world_run(&script, &result);
	for (size_t i = 0; i < result.service_conns; i++)
		fuzz_check_requests(buf_str(&result.service[i].received));
	check_frames(buf_str(&result.client));
	FUZZ_CHECK(buf_len(&result.client) >= 9);
	world_result_fini(&result);
	buf_fini(&client);
	return 0;
}
