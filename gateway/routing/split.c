/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/split.h"

#include <math.h>

#include "lib/hash.h"

static const struct hash_key fixed_key = { { 0x73706c69745f6b65ULL, 0x795f6f665f737663ULL } };

uint64_t split_id(struct str service)
{
	return hash_sip13(&fixed_key, service.p, service.len);
}

size_t split_draw(const struct gw_route *route, uint64_t dice)
{
	uint64_t total = 0, at;

	for (size_t i = 0; i < route->split_count; i++)
		total += route->split[i].weight;
	/* Scaled by multiplication: the high bits decide, without the bias of a remainder. */
	at = (uint64_t)((unsigned __int128)dice * total >> 64);
	for (size_t i = 0; i < route->split_count; i++) {
		if (at < route->split[i].weight)
			return i;
		at -= route->split[i].weight;
	}
	return route->split_count - 1;
}

size_t split_stick(const struct gw_route *route, uint64_t key)
{
	double best = 0;
	size_t found = 0;

	for (size_t i = 0; i < route->split_count; i++) {
		uint64_t h = hash_mix64(key + route->split[i].id);
		/* Between 0 and 1, never either. */
		double u = ((double)(h >> 11) + 0.5) * 0x1p-53;
		double score = (double)route->split[i].weight / -log(u);

		if (score > best) {
			best = score;
			found = i;
		}
	}
	return found;
}
