/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PROXY protocol, versions 1 and 2, as receivers read it: whom a proxy in front says it speaks
 * for. Parsing only; whom to believe is the caller's to know.
 */
#pragma once

#include "lib/net.h"

/* Longest header taken: the longest address and 4 KiB of TLVs, of which none is used. */
#define PROXY_HEADER_MAX (16UL + 216 + 4096)

struct proxy_header {
	/* The peer speaks for itself (LOCAL, a health check), or does not know for whom (UNKNOWN,
	 * UNSPEC): the connection's own addresses count, and those below are empty. */
	bool is_local;
	struct net_addr from, to;
};

/*
 * The header at the start of `data`. Its length; -EAGAIN when there is not enough yet; -EPROTO when
 * it is none, or contradicts itself. `out` is written on success only.
 */
long proxy_header_parse(struct proxy_header *out, const void *data, size_t len);
