/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/allow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"

static struct nlb_allow_key key_of(uint16_t vip, const struct net_prefix *prefix)
{
	struct nlb_allow_key key = { .prefix_len = 32U + prefix->bits, .vip = vip };

	memcpy(key.address, prefix->bytes, sizeof(key.address));
	return key;
}

int allow_add(const struct nlb_maps *maps, uint16_t vip, const struct nlb_conf_vip *conf)
{
	uint32_t one = 1;

	for (size_t i = 0; i < conf->allow_count; i++) {
		struct nlb_allow_key key = key_of(vip, &conf->allow[i]);

		if (bpf_map_update_elem(maps->allowed, &key, &one, BPF_ANY) != 0)
			return -errno;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct nlb_allow_key));
}

/* Every key of the map; NULL when there is none or no memory. */
static struct nlb_allow_key *read_all(const struct nlb_maps *maps, size_t *count)
{
	struct nlb_allow_key key, *previous = NULL, *all = NULL;
	size_t capacity = 0;

	*count = 0;
	while (bpf_map_get_next_key(maps->allowed, previous, &key) == 0) {
		previous = &key;
		if (*count == capacity) {
			struct nlb_allow_key *grown;

			capacity = capacity ? capacity * 2 : 64;
			grown = realloc(all, capacity * sizeof(*all));
			if (!grown)
				break;
			all = grown;
		}
		all[(*count)++] = key;
	}
	return all;
}

void allow_sweep(const struct nlb_maps *maps, const struct allow_list *lists, size_t count)
{
	CLEANUP(cleanup_free) struct nlb_allow_key *wanted = NULL;
	CLEANUP(cleanup_free) struct nlb_allow_key *all = NULL;
	size_t total = 0, have, n = 0;

	for (size_t i = 0; i < count; i++)
		total += lists[i].conf->allow_count;
	wanted = calloc(total + 1, sizeof(*wanted));
	all = read_all(maps, &have);
	if (!wanted || !all)
		return;
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < lists[i].conf->allow_count; k++)
			wanted[n++] = key_of(lists[i].vip, &lists[i].conf->allow[k]);
	}
	qsort(wanted, n, sizeof(*wanted), compare);
	for (size_t i = 0; i < have; i++) {
		if (!bsearch(&all[i], wanted, n, sizeof(*wanted), compare))
			bpf_map_delete_elem(maps->allowed, &all[i]);
	}
}
