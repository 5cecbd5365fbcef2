/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/vipmap.h"

#include <errno.h>

#include <bpf/bpf.h>

struct vip_key vip_key_of(const struct nlb_conf_vip *conf)
{
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct vip_key key = { .port = htons(conf->port), .protocol = protocols[conf->protocol] };

	key.family = vipmap_address(key.address, &conf->address);
	return key;
}

struct vip_key vip_key_address(const struct vip_key *key)
{
	struct vip_key address = *key;

	address.port = 0;
	address.protocol = 0;
	return address;
}

/* The key in its map's own form. */
struct map_key {
	union {
		struct nlb_vip4_key v4;
		struct nlb_vip6_key v6;
	};
	int fd;
};

static struct map_key map_key(const struct nlb_maps *maps, const struct vip_key *key)
{
	struct map_key out = { .fd = key->family == 6 ? maps->vips6 : maps->vips4 };

	if (key->family == 6) {
		out.v6 = (struct nlb_vip6_key) { .port = key->port, .protocol = key->protocol };
		memcpy(out.v6.address, key->address, sizeof(out.v6.address));
	} else {
		out.v4 = (struct nlb_vip4_key) { .port = key->port, .protocol = key->protocol };
		memcpy(&out.v4.address, key->address, sizeof(out.v4.address));
	}
	return out;
}

int vipmap_get(const struct nlb_maps *maps, const struct vip_key *key, struct nlb_vip *out)
{
	struct map_key k = map_key(maps, key);

	return bpf_map_lookup_elem(k.fd, &k, out) == 0 ? 0 : -errno;
}

int vipmap_put(const struct nlb_maps *maps, const struct vip_key *key, const struct nlb_vip *value)
{
	struct map_key k = map_key(maps, key);

	return bpf_map_update_elem(k.fd, &k, value, BPF_ANY) == 0 ? 0 : -errno;
}

void vipmap_delete(const struct nlb_maps *maps, const struct vip_key *key)
{
	struct map_key k = map_key(maps, key);

	bpf_map_delete_elem(k.fd, &k);
}

size_t vipmap_list(const struct nlb_maps *maps, struct vip_key *out)
{
	struct nlb_vip4_key v4, *previous4 = NULL;
	struct nlb_vip6_key v6, *previous6 = NULL;
	size_t count = 0;

	while (count < VIPMAP_MAX && bpf_map_get_next_key(maps->vips4, previous4, &v4) == 0) {
		struct vip_key *key = &out[count++];

		*key = (struct vip_key) { .port = v4.port, .protocol = v4.protocol, .family = 4 };
		memcpy(key->address, &v4.address, sizeof(v4.address));
		previous4 = &v4;
	}
	while (count < VIPMAP_MAX && bpf_map_get_next_key(maps->vips6, previous6, &v6) == 0) {
		struct vip_key *key = &out[count++];

		*key = (struct vip_key) { .port = v6.port, .protocol = v6.protocol, .family = 6 };
		memcpy(key->address, v6.address, sizeof(v6.address));
		previous6 = &v6;
	}
	return count;
}
