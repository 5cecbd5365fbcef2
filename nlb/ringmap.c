/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/ringmap.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/clock.h"

#define RING_BYTES (sizeof(struct nlb_slot) * NLB_RING_SLOTS)

void ring_release(struct ring *ring)
{
	if (ring->slots)
		munmap(ring->slots, RING_BYTES);
	if (ring->fd >= 0)
		close(ring->fd);
	ring->slots = NULL;
	ring->fd = -1;
}

static struct nlb_slot *map_memory(int fd)
{
	void *p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int ring_adopt(struct ring *ring, int rings_fd, uint16_t vip)
{
	__u32 key = vip, inner_id = 0;
	int rc;

	if (bpf_map_lookup_elem(rings_fd, &key, &inner_id) != 0)
		return 0;
	ring->fd = bpf_map_get_fd_by_id(inner_id);
	if (ring->fd < 0)
		return -errno;
	ring->slots = map_memory(ring->fd);
	if (ring->slots)
		return 0;
	rc = -errno;
	ring_release(ring);
	return rc;
}

int ring_replace(struct ring *ring, int rings_fd, uint16_t vip, const struct ring_member *members,
		 size_t count, const struct hash_key *hash_key, bool is_beginning)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	CLEANUP(cleanup_close)
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ring", sizeof(__u32), sizeof(struct nlb_slot),
				NLB_RING_SLOTS, &opts);
	struct nlb_slot *slots = fd >= 0 ? map_memory(fd) : NULL;
	__u32 key = vip;
	int moved;

	if (!slots)
		return -errno;
	moved = ring_build(slots, ring->slots, members, count, hash_key, is_beginning,
			   clock_boot_minutes());
	if (moved >= 0 && bpf_map_update_elem(rings_fd, &key, &fd, BPF_ANY) != 0)
		moved = -errno;
	if (moved < 0) {
		munmap(slots, RING_BYTES);
		return moved;
	}
	ring_release(ring);
	ring->slots = slots;
	ring->fd = TAKE_FD(fd);
	return moved;
}

void ring_settle_in_place(struct ring *ring, uint32_t settle_s)
{
	if (ring->slots)
		ring_settle(ring->slots, clock_boot_minutes(), MAX(settle_s / 60, 1U));
}
