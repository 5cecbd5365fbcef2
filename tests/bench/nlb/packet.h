/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of the benchmark's world, and its packets. */
#pragma once

#include "tests/bench/nlb/cases.h"

#define SERVICE_PORT 443
#define SOURCE       0xc6336400U /* 198.51.100.0; the harness counts up from here */
#define SOURCE_BAD   0xc0000200U /* 192.0.2.0: blocked */
#define PACKET_MAX   2048

/* An established connection of this host with itself: the client's end and the service's. */
struct local_connection {
	uint16_t client_port, service_port; /* on 127.0.0.1, host order */
};

/* As the maps have them: IPv4 in the first four bytes. */
void vip_address(uint8_t out[16], enum vip vip);
void gateway_address(uint8_t out[16], uint32_t id);
void nlb_address(uint8_t out[16], uint8_t family);

/* Fills c->size bytes. Cases of a gateway's half use the local connection. */
void make_packet(uint8_t *out, const struct bench_case *c, const struct local_connection *local);
