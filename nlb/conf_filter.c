/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/conf_filter.h"

#include "lib/cleanup.h"
#include "nlb/conf.h"

#define PER_S_MAX   100000
#define BURST_MAX_S 60 /* 2^32 of 2^-16 ticks are 65 s at 1,000 ticks a second */

static void check_source_rate(struct conf *c, void *object)
{
	struct nlb_conf_source_rate *rate = object;

	if (!rate->burst && !conf_has(c, "burst"))
		rate->burst = rate->per_s;
	if (rate->per_s && rate->burst > BURST_MAX_S * rate->per_s)
		conf_error_at(c, "burst", "must not be more than what %d s earn (%u)", BURST_MAX_S,
			      BURST_MAX_S * rate->per_s);
}

static const struct conf_row source_rate_rows[] = {
	{ CONF_INT("per_s", struct nlb_conf_source_rate, per_s), .flags = CONF_REQUIRED, .min = 1,
	  .max = PER_S_MAX, .help = "what a source earns in a second" },
	{ CONF_INT("burst", struct nlb_conf_source_rate, burst), .min = 1,
	  .max = 1L * BURST_MAX_S * PER_S_MAX,
	  .help = "how many may come at once; per_s if not given" },
	{ 0 },
};
const struct conf_object nlb_conf_source_rate_object =
	CONF_OBJECT_OF(struct nlb_conf_source_rate, source_rate_rows, .check = check_source_rate);

void nlb_conf_filter_fit(struct conf *c, struct nlb_conf_vip *vip)
{
	bool is_v6 = vip->address.sa.sa_family == AF_INET6;

	for (size_t i = 0; vip->address.len && i < vip->allow_count; i++) {
		struct net_prefix *p = &vip->allow[i];

		net_prefix_trim(p);
		/* No bits at all: every source, of either family, or a mistake that was told
		 * already. */
		if (!p->bits || net_prefix_is_ipv4(p) != is_v6)
			continue;
		conf_enter_index(c, "allow", i);
		conf_error(c, "is IPv%d, while the VIP is IPv%d", is_v6 ? 4 : 6, is_v6 ? 6 : 4);
		conf_leave(c);
	}
}

void nlb_conf_source_rate_ticks(const struct nlb_conf_source_rate *rate, uint32_t hz,
				uint32_t *interval, uint32_t *burst)
{
	uint64_t second = (uint64_t)hz << 16;

	*interval = (uint32_t)MAX(second / rate->per_s, (uint64_t)1);
	*burst = (uint32_t)MIN((uint64_t)*interval * rate->burst, (uint64_t)UINT32_MAX);
}
