/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/vips.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "nlb/rings.h"
#include "nlb/stats.h"

#define SETTLE_SWEEP_MS 30000
#define RING_BYTES      (sizeof(struct nlb_slot) * NLB_RING_SLOTS)
/* Beside the flags that packets see: drained by hand, kept for the next nlbd. */
#define GATEWAY_FLAG_DRAINED 0x80U

struct vips {
	struct loop *loop;
	struct loader *loader;
	struct nlb_maps *maps;
	struct http_client *client;
	struct neigh *neigh;
	struct loop_task flush; /* at the end of the round */
	struct loop_timer settle;
	struct list list;
	const struct nlb_conf *conf;
	struct hash_key ring_key;
	struct gateway *by_id[NLB_MAX_GATEWAYS];
	uint16_t next_id;
	bool has_vip_id[NLB_MAX_VIPS];
};

const char *gateway_state_name(enum gateway_state state)
{
	static const char *const names[] = {
		[GATEWAY_UP] = "up",           [GATEWAY_DRAINING] = "draining",
		[GATEWAY_UNKNOWN] = "unknown", [GATEWAY_UNRESOLVED] = "unresolved",
		[GATEWAY_DOWN] = "down",
	};

	return names[state];
}

struct list *vips_list(struct vips *v)
{
	return &v->list;
}

struct vip *vips_find(struct vips *v, struct str name)
{
	struct vip *vip;

	vips_for_each(vip, v)
	{
		if (str_eqz(name, vip->name))
			return vip;
	}
	return NULL;
}

static void set_name(char out[static NLB_NAME_MAX], struct str name)
{
	size_t len = MIN(name.len, (size_t)NLB_NAME_MAX - 1);

	memcpy(out, name.p, len);
	out[len] = '\0';
}

static void mark_dirty(struct vip *vip)
{
	vip->is_dirty = true;
	loop_defer(vip->all->loop, &vip->all->flush);
}

static uint64_t now_minutes(void)
{
	return clock_wall_ms() / 60000;
}

/* --- rings -------------------------------------------------------------------------------------
 */

static void ring_release(struct vip *vip)
{
	if (vip->ring)
		munmap(vip->ring, RING_BYTES);
	if (vip->ring_fd >= 0)
		close(vip->ring_fd);
	vip->ring = NULL;
	vip->ring_fd = -1;
}

static struct nlb_slot *ring_map_memory(int fd)
{
	void *p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The ring that an earlier nlbd left: its history keeps connections where they are. */
static void ring_adopt(struct vip *vip)
{
	__u32 key = vip->id, inner_id = 0;

	if (bpf_map_lookup_elem(vip->all->maps->rings, &key, &inner_id) != 0)
		return;
	vip->ring_fd = bpf_map_get_fd_by_id(inner_id);
	if (vip->ring_fd < 0) {
		log_warn("vip=%s: the former ring cannot be read (%s): connections whose gateway "
			 "changes now "
			 "are kept by the second choice only",
			 vip->name, strerror(errno));
		return;
	}
	vip->ring = ring_map_memory(vip->ring_fd);
	if (!vip->ring)
		ring_release(vip);
}

/* Builds the new ring aside and puts it in place with one update. */
static int ring_replace(struct vip *vip, const struct ring_member *members, size_t count)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	CLEANUP(cleanup_close)
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ring", sizeof(__u32), sizeof(struct nlb_slot),
				NLB_RING_SLOTS, &opts);
	struct nlb_slot *slots = fd >= 0 ? ring_map_memory(fd) : NULL;
	__u32 key = vip->id;
	int moved;

	if (!slots)
		return -errno;
	moved = ring_build(slots, vip->ring, members, count, &vip->all->ring_key, now_minutes());
	if (moved >= 0 && bpf_map_update_elem(vip->all->maps->rings, &key, &fd, BPF_ANY) != 0)
		moved = -errno;
	if (moved < 0) {
		munmap(slots, RING_BYTES);
		return moved;
	}
	ring_release(vip);
	vip->ring = slots;
	vip->ring_fd = TAKE_FD(fd);
	return moved;
}

static void on_settle(struct loop_timer *timer)
{
	struct vips *v = container_of(timer, struct vips, settle);
	struct vip *vip;

	vips_for_each(vip, v)
	{
		if (vip->ring)
			ring_settle(vip->ring, now_minutes(), MAX(v->conf->settle_s / 60, 1U));
	}
	loop_timer_start(v->loop, &v->settle, SETTLE_SWEEP_MS);
}

/* --- gateways ----------------------------------------------------------------------------------
 */

static bool is_healthy(const struct gateway *gw)
{
	if (!gw->vip->conf->health)
		return true;
	return gw->health.state == HEALTH_UP ||
	       (gw->health.state == HEALTH_UNKNOWN && gw->was_usable);
}

static enum gateway_state state_of(const struct gateway *gw)
{
	if (!is_healthy(gw))
		return gw->health.state == HEALTH_DOWN ? GATEWAY_DOWN : GATEWAY_UNKNOWN;
	if (!gw->hop.is_resolved)
		return GATEWAY_UNRESOLVED;
	if (gw->is_drained || gw->is_listed_draining)
		return GATEWAY_DRAINING;
	return GATEWAY_UP;
}

static void log_state(const struct gateway *gw, enum gateway_state before)
{
	const char *why = gw->state == GATEWAY_DOWN         ? gw->why
			  : gw->state == GATEWAY_UNRESOLVED ? gw->hop.problem
			  : gw->is_listed_draining          ? "out of service in the registry"
			  : gw->is_drained                  ? "by hand"
							    : "";

	if (gw->state == before || (before == GATEWAY_UNKNOWN && gw->state == GATEWAY_UNRESOLVED))
		return;
	log_event(gw->state == GATEWAY_UP || gw->state == GATEWAY_DRAINING ? LOG_INFO : LOG_WARN,
		  "vip=%s gateway=%s: %s%s%s", gw->vip->name, gw->name,
		  gateway_state_name(gw->state), *why ? ", " : "", why);
}

static void on_check(struct check *check, const char *why)
{
	struct gateway *gw = container_of(check, struct gateway, check);
	const struct nlb_conf_health *health = gw->vip->conf->health;

	snprintf(gw->why, sizeof(gw->why), "%s", why ? why : "");
	if (health_report(&gw->health, !why, health->rise, health->fall))
		mark_dirty(gw->vip);
}

/* What packets see of the gateway. The flags last: until then the entry says "unusable". */
static void gateway_write(struct gateway *gw, bool is_usable)
{
	struct nlb_gateway *entry = &gw->vip->all->maps->gateways[gw->id];
	uint8_t flags = (uint8_t)((is_usable ? NLB_GATEWAY_USABLE : 0) |
				  (gw->hop.is_resolved ? NLB_GATEWAY_RESOLVED : 0) |
				  (gw->is_drained ? GATEWAY_FLAG_DRAINED : 0));

	memcpy(entry->address, &gw->address.in.sin_addr, 4);
	entry->family = 4;
	entry->vip = gw->vip->id;
	entry->generation = gw->generation;
	if (gw->hop.is_resolved) {
		memcpy(entry->next_hop_mac, gw->hop.mac, 6);
		memcpy(entry->source_mac, gw->hop.source_mac, 6);
		entry->ifindex = gw->hop.ifindex;
		entry->mtu = gw->hop.mtu;
	}
	__atomic_store_n(&entry->flags, flags, __ATOMIC_RELEASE);
}

static int zero_stats(struct vips *v, uint16_t id)
{
	CLEANUP(cleanup_free)
	void *zero = calloc((size_t)v->maps->cpus, sizeof(struct nlb_gateway_stats));
	__u32 key = id;

	return zero && bpf_map_update_elem(v->maps->gateway_stats, &key, zero, BPF_ANY) == 0
		       ? 0
		       : -ENOMEM;
}

/*
 * The identifier that an earlier nlbd gave to this gateway, or one that has not been used for as
 * long as possible, with its next generation.
 */
static bool take_id(struct gateway *gw)
{
	struct vips *v = gw->vip->all;

	for (uint16_t id = 1; id < NLB_MAX_GATEWAYS; id++) {
		const struct nlb_gateway *entry = &v->maps->gateways[id];

		if (v->by_id[id] || entry->family != 4 || !entry->flags ||
		    entry->vip != gw->vip->id ||
		    memcmp(entry->address, &gw->address.in.sin_addr, 4) != 0)
			continue;
		gw->id = id;
		gw->generation = entry->generation;
		gw->was_usable = entry->flags & NLB_GATEWAY_USABLE;
		gw->is_drained = entry->flags & GATEWAY_FLAG_DRAINED;
		v->by_id[id] = gw;
		return true;
	}
	for (unsigned tries = 1; tries < NLB_MAX_GATEWAYS; tries++) {
		uint16_t id = v->next_id;

		v->next_id = (uint16_t)(id + 1 < NLB_MAX_GATEWAYS ? id + 1 : 1);
		if (v->by_id[id] || v->maps->gateways[id].flags)
			continue;
		gw->id = id;
		gw->generation = (uint16_t)(v->maps->gateways[id].generation + 1);
		v->by_id[id] = gw;
		zero_stats(v, id);
		return true;
	}
	return false;
}

static struct gateway *gateway_add(struct vip *vip, const struct gateway_listing *listing)
{
	struct gateway *gw = calloc(1, sizeof(*gw));

	if (!gw)
		return NULL;
	gw->vip = vip;
	gw->address = listing->address;
	gw->state = GATEWAY_UNKNOWN;
	gw->check.on_result = on_check;
	net_format_ip(gw->ip, &gw->address);
	if (!take_id(gw)) {
		log_error("vip=%s gateway=%s: more than %d gateways in all", vip->name, gw->ip,
			  NLB_MAX_GATEWAYS - 1);
		free(gw);
		return NULL;
	}
	list_add_tail(&vip->gateways, &gw->node);
	return gw;
}

static void gateway_remove(struct gateway *gw)
{
	struct vips *v = gw->vip->all;
	struct nlb_gateway_stats stats;

	check_stop(&gw->check);
	stats_gateway(v->maps, gw->id, &stats);
	stats_add(&gw->vip->former, &stats);
	list_remove(&gw->node);
	__atomic_store_n(&v->maps->gateways[gw->id].flags, 0, __ATOMIC_RELEASE);
	v->by_id[gw->id] = NULL;
	free(gw);
}

static struct gateway *gateway_find(struct vip *vip, const struct net_addr *address)
{
	struct gateway *gw;

	gateways_for_each(gw, vip)
	{
		if (gw->address.in.sin_addr.s_addr == address->in.sin_addr.s_addr)
			return gw;
	}
	return NULL;
}

/* --- a VIP as a whole --------------------------------------------------------------------------
 */

/* Nobody is left, and everybody was asked: better to try all than to serve none. */
static bool must_panic(struct vip *vip)
{
	struct gateway *gw;
	bool any_down = false;

	gateways_for_each(gw, vip)
	{
		if (gw->state == GATEWAY_UP || gw->state == GATEWAY_UNKNOWN)
			return false;
		any_down |= gw->state == GATEWAY_DOWN && !gw->is_drained && !gw->is_listed_draining;
	}
	return any_down;
}

static void set_panic(struct vip *vip, bool is_panicking)
{
	if (is_panicking && !vip->is_panicking)
		log_error("vip=%s: no healthy gateway is left, forwarding to all of them",
			  vip->name);
	if (!is_panicking && vip->is_panicking)
		log_info("vip=%s: a healthy gateway is back", vip->name);
	vip->is_panicking = is_panicking;
}

static struct ring_member ring_member(const struct gateway *gw)
{
	bool wants_new = !gw->is_drained && !gw->is_listed_draining;
	bool panics = gw->vip->is_panicking;

	return (struct ring_member) {
		.id = gw->id,
		.identity = str_from(gw->ip),
		.weight = gw->weight,
		.takes_new = gw->state == GATEWAY_UP ||
			     (panics && gw->state == GATEWAY_DOWN && wants_new),
		.takes_known = gw->state == GATEWAY_UP || gw->state == GATEWAY_DRAINING || panics,
	};
}

static uint64_t ring_input(const struct ring_member *members, size_t count)
{
	uint64_t h = 1;

	for (size_t i = 0; i < count; i++) {
		const struct ring_member *m = &members[i];

		/* A sum: the order of listing has no influence on the ring. */
		h += hash_mix64(hash_mix64(m->id) + (uint64_t)m->weight * 4 + m->takes_new * 2U +
				m->takes_known);
	}
	return h;
}

static void count_slots(struct vip *vip)
{
	CLEANUP(cleanup_free) uint32_t *owned = calloc(NLB_MAX_GATEWAYS, sizeof(*owned));
	struct gateway *gw;

	if (!owned || !vip->ring)
		return;
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (vip->ring[s].gateway < NLB_MAX_GATEWAYS)
			owned[vip->ring[s].gateway]++;
	}
	gateways_for_each(gw, vip) gw->slots = owned[gw->id];
}

static void rebuild(struct vip *vip, const struct ring_member *members, size_t count)
{
	uint64_t input = ring_input(members, count);
	uint64_t begin = clock_mono_ns();
	int moved;

	if (vip->ring && vip->ring_input == input)
		return;
	moved = ring_replace(vip, members, count);
	if (moved < 0) {
		log_error("vip=%s: building the ring: %s; the former one stays", vip->name,
			  strerror(-moved));
		return;
	}
	vip->ring_input = input;
	count_slots(vip);
	log_debug("vip=%s: ring replaced, %d of %d slots changed owner, %.1f ms", vip->name, moved,
		  NLB_RING_SLOTS, (double)(clock_mono_ns() - begin) / 1e6);
}

/* Removes who is no longer listed; after the ring was replaced, so that no packet meets a gap. */
static void remove_unlisted(struct vip *vip)
{
	struct list *at = vip->gateways.next;

	while (at != &vip->gateways) {
		struct gateway *gw = container_of(at, struct gateway, node);

		at = at->next;
		if (!gw->is_listed) {
			log_info("vip=%s gateway=%s: removed", vip->name, gw->name);
			gateway_remove(gw);
		}
	}
}

static void vip_flush(struct vip *vip)
{
	CLEANUP(cleanup_free) struct ring_member *members = NULL;
	struct gateway *gw;
	size_t count = 0, listed = 0;

	vip->is_dirty = false;
	if (vip->is_waiting)
		return;
	gateways_for_each(gw, vip)
	{
		enum gateway_state before = gw->state;

		gw->state = state_of(gw);
		if (gw->is_listed)
			log_state(gw, before);
		listed++;
	}
	members = calloc(listed + 1, sizeof(*members));
	if (!members) {
		log_error("vip=%s: out of memory, the ring stays as it is", vip->name);
		return;
	}
	set_panic(vip, must_panic(vip));

	gateways_for_each(gw, vip)
	{
		struct ring_member m = ring_member(gw);

		if (!gw->is_listed)
			continue;
		members[count++] = m;
		/* Those that come into use have to be complete before the ring names them ... */
		if (m.takes_known)
			gateway_write(gw, true);
	}
	rebuild(vip, members, count);
	/* ... and those that go out of use are switched off when it no longer does. */
	gateways_for_each(gw, vip)
	{
		if (!ring_member(gw).takes_known)
			gateway_write(gw, false);
	}
	remove_unlisted(vip);
}

void vips_flush(struct vips *v)
{
	struct vip *vip;

	vips_for_each(vip, v)
	{
		if (vip->is_dirty)
			vip_flush(vip);
	}
}

static void on_flush(struct loop_task *task)
{
	vips_flush(container_of(task, struct vips, flush));
}

void vip_list(struct vip *vip, const struct gateway_listing *list, size_t count)
{
	struct vips *v = vip->all;
	struct gateway *gw;

	gateways_for_each(gw, vip) gw->is_listed = false;
	for (size_t i = 0; i < count; i++) {
		const struct gateway_listing *l = &list[i];

		if (l->address.sa.sa_family != AF_INET)
			continue;
		gw = gateway_find(vip, &l->address);
		if (!gw) {
			gw = gateway_add(vip, l);
			if (!gw)
				continue;
			neigh_resolve(v->neigh, &gw->address, &gw->hop);
		}
		set_name(gw->name, l->name);
		gw->weight = MIN(l->weight, (uint32_t)MAGLEV_WEIGHT_MAX);
		gw->is_listed = true;
		gw->is_listed_draining = l->is_draining;
		if (vip->conf->health) {
			check_start(&gw->check, v->loop, v->client, vip->conf->health,
				    &gw->address);
		} else {
			check_stop(&gw->check);
			gw->health = (struct health) { 0 };
		}
	}
	vip->is_waiting = false;
	mark_dirty(vip);
}

static bool hop_changed(const struct next_hop *a, const struct next_hop *b)
{
	return a->is_resolved != b->is_resolved || a->ifindex != b->ifindex || a->mtu != b->mtu ||
	       memcmp(a->mac, b->mac, 6) != 0 || memcmp(a->source_mac, b->source_mac, 6) != 0;
}

static void on_neighbours(void *arg)
{
	struct vips *v = arg;
	struct gateway *gw;
	struct vip *vip;

	vips_for_each(vip, v)
	{
		gateways_for_each(gw, vip)
		{
			struct next_hop before = gw->hop;

			neigh_resolve(v->neigh, &gw->address, &gw->hop);
			if (hop_changed(&before, &gw->hop))
				mark_dirty(vip);
		}
	}
}

/* --- the set of VIPs ---------------------------------------------------------------------------
 */

static struct nlb_vip4_key key_of(const struct nlb_conf_vip *conf)
{
	return (struct nlb_vip4_key) { .address = conf->address.in.sin_addr.s_addr,
				       .port = conf->address.in.sin_port,
				       .protocol = IPPROTO_TCP };
}

static int take_vip_id(struct vips *v, const struct nlb_vip4_key *key)
{
	struct nlb_vip known;

	if (bpf_map_lookup_elem(v->maps->vips4, key, &known) == 0 && known.id < NLB_MAX_VIPS &&
	    !v->has_vip_id[known.id]) {
		v->has_vip_id[known.id] = true;
		return known.id;
	}
	return -ENOENT;
}

static int take_free_vip_id(struct vips *v)
{
	__u32 inner;

	for (__u32 id = 0; id < NLB_MAX_VIPS; id++) {
		if (v->has_vip_id[id])
			continue;
		/* Not one whose former VIP is about to be removed: its ring is another pool's. */
		if (bpf_map_lookup_elem(v->maps->rings, &id, &inner) == 0)
			bpf_map_delete_elem(v->maps->rings, &id);
		v->has_vip_id[id] = true;
		return (int)id;
	}
	return -ENOSPC;
}

static int write_vip(struct vip *vip)
{
	struct nlb_vip4_key address = { .address = vip->key.address };
	struct nlb_vip value = { .id = vip->id, .encap = (uint8_t)(vip->conf->encap + 1) };
	struct nlb_vip none = { 0 };

	if (bpf_map_update_elem(vip->all->maps->vips4, &address, &none, BPF_ANY) != 0 ||
	    bpf_map_update_elem(vip->all->maps->vips4, &vip->key, &value, BPF_ANY) != 0)
		return -errno;
	return 0;
}

static void vip_remove(struct vip *vip)
{
	struct vips *v = vip->all;
	__u32 key = vip->id;

	bpf_map_delete_elem(v->maps->vips4, &vip->key);
	bpf_map_delete_elem(v->maps->rings, &key);
	while (!list_empty(&vip->gateways))
		gateway_remove(container_of(vip->gateways.next, struct gateway, node));
	ring_release(vip);
	v->has_vip_id[vip->id] = false;
	list_remove(&vip->node);
	log_info("vip=%s: removed", vip->name);
	free(vip);
}

static struct vip *find_by_key(struct vips *v, const struct nlb_vip4_key *key)
{
	struct vip *vip;

	vips_for_each(vip, v)
	{
		if (memcmp(&vip->key, key, sizeof(*key)) == 0)
			return vip;
	}
	return NULL;
}

static bool is_configured(const struct nlb_conf *conf, const struct nlb_vip4_key *key)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct nlb_vip4_key k = key_of(&conf->vips[i]);

		if (key->port ? memcmp(&k, key, sizeof(k)) == 0 : k.address == key->address)
			return true;
	}
	return false;
}

/* Entries of VIPs that are configured no more, also those left by an earlier nlbd. */
static void remove_stale_vips(struct vips *v, const struct nlb_conf *conf)
{
	struct nlb_vip4_key stale[2 * NLB_MAX_VIPS], key, *previous = NULL;
	struct list *at = v->list.next;
	size_t count = 0;

	while (at != &v->list) {
		struct vip *vip = container_of(at, struct vip, node);

		at = at->next;
		if (!is_configured(conf, &vip->key))
			vip_remove(vip);
	}
	while (count < ARRAY_SIZE(stale) &&
	       bpf_map_get_next_key(v->maps->vips4, previous, &key) == 0) {
		if (!is_configured(conf, &key))
			stale[count++] = key;
		previous = &key;
	}
	for (size_t i = 0; i < count; i++) {
		struct nlb_vip value;
		__u32 id;

		if (bpf_map_lookup_elem(v->maps->vips4, &stale[i], &value) == 0 && stale[i].port) {
			id = value.id;
			bpf_map_delete_elem(v->maps->rings, &id);
		}
		bpf_map_delete_elem(v->maps->vips4, &stale[i]);
	}
}

/* Gateways that an earlier nlbd knew and nobody lists any more. */
static void remove_stale_gateways(struct vips *v)
{
	bool is_waiting[NLB_MAX_VIPS] = { false };
	struct vip *vip;

	vips_for_each(vip, v) is_waiting[vip->id] = vip->is_waiting;
	for (unsigned id = 1; id < NLB_MAX_GATEWAYS; id++) {
		struct nlb_gateway *entry = &v->maps->gateways[id];

		if (entry->flags && !v->by_id[id] &&
		    (entry->vip >= NLB_MAX_VIPS || !is_waiting[entry->vip]))
			__atomic_store_n(&entry->flags, 0, __ATOMIC_RELEASE);
	}
}

static struct vip *vip_add(struct vips *v, const struct nlb_conf_vip *conf, int id)
{
	struct vip *vip = calloc(1, sizeof(*vip));

	if (!vip)
		return NULL;
	vip->all = v;
	vip->conf = conf;
	vip->key = key_of(conf);
	vip->id = (uint16_t)id;
	vip->ring_fd = -1;
	vip->is_waiting = conf->discover.p;
	list_init(&vip->gateways);
	list_add_tail(&v->list, &vip->node);
	set_name(vip->name, conf->name);
	return vip;
}

/* Those that are in the maps already first: no other may be given their identifiers. */
static int add_vips(struct vips *v, const struct nlb_conf *conf)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct nlb_vip4_key key = key_of(&conf->vips[i]);
		struct vip *vip;
		int id;

		if (find_by_key(v, &key))
			continue;
		id = take_vip_id(v, &key);
		if (id < 0)
			continue;
		vip = vip_add(v, &conf->vips[i], id);
		if (!vip)
			return -ENOMEM;
		ring_adopt(vip);
	}
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct nlb_vip4_key key = key_of(&conf->vips[i]);
		struct vip *vip = find_by_key(v, &key);
		int id;

		if (!vip) {
			id = take_free_vip_id(v);
			vip = id < 0 ? NULL : vip_add(v, &conf->vips[i], id);
		}
		if (!vip)
			return -ENOMEM;
		/* In the configuration's order, which is the one that people see. */
		list_remove(&vip->node);
		list_add_tail(&v->list, &vip->node);
	}
	return 0;
}

static void list_from_conf(struct vip *vip)
{
	const struct nlb_conf_vip *conf = vip->conf;
	struct gateway_listing *list = calloc(conf->gateways_count + 1, sizeof(*list));

	if (!list) {
		log_error("vip=%s: out of memory", vip->name);
		return;
	}
	for (size_t i = 0; i < conf->gateways_count; i++)
		list[i] = (struct gateway_listing) { .name = conf->gateways[i].name,
						     .address = conf->gateways[i].address,
						     .weight = conf->gateways[i].weight };
	vip_list(vip, list, conf->gateways_count);
	free(list);
}

int vips_apply(struct vips *v, const struct nlb_conf *conf, struct err *err)
{
	uint64_t unused[NLB_HASH_KEYS];
	struct vip *vip;
	int rc;

	v->conf = conf;
	nlb_conf_hash_keys(conf, &v->ring_key, unused);
	remove_stale_vips(v, conf);
	rc = add_vips(v, conf);
	if (rc)
		return err_set(err, rc, "out of memory for the VIPs");
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct nlb_vip4_key k = key_of(&conf->vips[i]);

		vip = find_by_key(v, &k);
		if (!vip)
			continue;
		vip->conf = &conf->vips[i];
		set_name(vip->name, vip->conf->name);
		if (!vip->conf->discover.p)
			list_from_conf(vip);
		mark_dirty(vip);
	}
	remove_stale_gateways(v);
	vips_flush(v);

	/* Last: a packet that finds its VIP also finds a ring. */
	vips_for_each(vip, v)
	{
		rc = write_vip(vip);
		if (rc)
			return err_set(err, rc, "vip=%s: writing to the BPF maps: %s", vip->name,
				       strerror(-rc));
	}
	return 0;
}

int vips_drain(struct vips *v, struct str vip_name, struct str name, bool drained, struct err *err)
{
	struct vip *vip = vips_find(v, vip_name);
	struct gateway *gw;

	if (!vip)
		return err_set(err, -ENOENT,
			       "there is no VIP named \"%.*s\" (nlbctl vips lists them)",
			       STR_ARG(vip_name));
	gateways_for_each(gw, vip)
	{
		if (!str_eqz(name, gw->name) && !str_eqz(name, gw->ip))
			continue;
		if (gw->is_drained == drained)
			return -EALREADY;
		gw->is_drained = drained;
		mark_dirty(vip);
		return 0;
	}
	return err_set(err, -ENOENT, "VIP %s has no gateway \"%.*s\" (nlbctl gateways lists them)",
		       vip->name, STR_ARG(name));
}

bool vips_are_ready(struct vips *v, struct err *why)
{
	struct vip *vip;

	vips_for_each(vip, v)
	{
		bool is_ready = vip->is_waiting && vip->ring;
		struct gateway *gw;

		gateways_for_each(gw, vip) is_ready |= gw->state == GATEWAY_UP;
		if (!is_ready) {
			err_set(why, 0, "vip=%s: no healthy gateway", vip->name);
			return false;
		}
	}
	return true;
}

struct vips *vips_new(struct loop *loop, struct loader *loader, struct http_client *client,
		      struct err *err)
{
	struct vips *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	v->loop = loop;
	v->loader = loader;
	v->maps = &loader->maps;
	v->client = client;
	v->next_id = 1;
	v->flush.run = on_flush;
	v->settle.on_fire = on_settle;
	list_init(&v->list);
	if (neigh_new(&v->neigh, loop, on_neighbours, v, err) != 0) {
		free(v);
		return NULL;
	}
	loop_timer_start(loop, &v->settle, SETTLE_SWEEP_MS);
	return v;
}

void vips_free(struct vips **vp)
{
	struct vips *v = *vp;

	if (!v)
		return;
	loop_timer_stop(v->loop, &v->settle);
	loop_cancel(&v->flush);
	while (!list_empty(&v->list)) {
		struct vip *vip = container_of(v->list.next, struct vip, node);

		while (!list_empty(&vip->gateways)) {
			struct gateway *gw = container_of(vip->gateways.next, struct gateway, node);

			check_stop(&gw->check);
			list_remove(&gw->node);
			free(gw);
		}
		ring_release(vip);
		list_remove(&vip->node);
		free(vip);
	}
	neigh_free(&v->neigh);
	free(v);
	*vp = NULL;
}
