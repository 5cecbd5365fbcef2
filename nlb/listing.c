/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/listing.h"

#include "lib/hash.h"
#include "lib/log.h"
#include "nlb/conf.h"

#define TOLD_MAX 10 /* one by one; the rest by their number */

static bool is_same_host(const struct net_addr *a, const struct net_addr *b)
{
	struct net_addr x = *a, y = *b;

	net_set_port(&x, 0);
	net_set_port(&y, 0);
	return net_addr_eq(&x, &y);
}

/* NULL: it may be a gateway's. */
static const char *what_is_wrong(const struct net_addr *address, const struct net_addr *vip)
{
	if (!nlb_conf_is_host(address))
		return "its address is no host's";
	if (is_same_host(address, vip))
		return "its address is the virtual IP itself";
	return NULL;
}

/* The family of most; the same on every NLB, whatever the order of the list. */
static sa_family_t main_family(const struct gateway_listing *list, size_t count,
			       const struct net_addr *vip)
{
	size_t v4 = 0, v6 = 0;

	for (size_t i = 0; i < count; i++) {
		bool is_v6 = list[i].address.sa.sa_family == AF_INET6;

		if (what_is_wrong(&list[i].address, vip))
			continue;
		v6 += is_v6;
		v4 += !is_v6;
	}
	return v6 > v4 ? AF_INET6 : AF_INET;
}

static void tell(const char *vip, const struct gateway_listing *l, const char *wrong)
{
	if (wrong)
		log_warn("vip=%s gateway=%.*s: %s: left out", vip, STR_ARG(l->name), wrong);
	else
		log_warn("vip=%s gateway=%.*s: its address is %s, most others' is not: left out, "
			 "as the gateways of a VIP are of one address family",
			 vip, STR_ARG(l->name), nlb_conf_family_name(&l->address));
}

size_t listing_filter(struct gateway_listing *list, size_t count, const char *vip,
		      const struct net_addr *vip_address, uint64_t *told)
{
	sa_family_t family = main_family(list, count, vip_address);
	uint64_t hash = 0;
	size_t kept = 0, out = 0;

	for (size_t i = 0; i < count; i++) {
		if (!what_is_wrong(&list[i].address, vip_address) &&
		    list[i].address.sa.sa_family == family)
			continue;
		hash += hash_mix64(hash_str(list[i].name)); /* a sum: their order says nothing */
	}
	for (size_t i = 0; i < count; i++) {
		const char *wrong = what_is_wrong(&list[i].address, vip_address);

		if (!wrong && list[i].address.sa.sa_family == family)
			list[kept++] = list[i];
		else if (out++ < TOLD_MAX && hash != *told)
			tell(vip, &list[i], wrong);
	}
	if (out > TOLD_MAX && hash != *told)
		log_warn("vip=%s: %zu more gateways left out for such reasons", vip,
			 out - TOLD_MAX);
	*told = hash;
	return kept;
}
