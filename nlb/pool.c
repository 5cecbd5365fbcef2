/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "nlb/stats.h"

/* Beside the flags that packets see: drained by hand, kept for the next nlbd. */
#define GATEWAY_FLAG_DRAINED 0x80U

#define BEGINNING_MAX_MS 10000

const char *gateway_state_name(enum gateway_state state)
{
	static const char *const names[] = {
		[GATEWAY_UP] = "up",           [GATEWAY_DRAINING] = "draining",
		[GATEWAY_UNKNOWN] = "unknown", [GATEWAY_UNRESOLVED] = "unresolved",
		[GATEWAY_DOWN] = "down",
	};

	return names[state];
}

bool gateway_takes_new(const struct gateway *gw)
{
	return gw->state == GATEWAY_UP && gw->weight;
}

void vip_set_name(char out[static NLB_NAME_MAX], struct str name)
{
	size_t len = MIN(name.len, (size_t)NLB_NAME_MAX - 1);

	memcpy(out, name.p, len);
	out[len] = '\0';
}

void vip_mark(struct vip *vip)
{
	vip->is_dirty = true;
	if (!vip->changed_ns)
		vip->changed_ns = clock_mono_ns();
	loop_defer(vip->pools->loop, &vip->pools->flush);
}

static bool is_draining(const struct gateway *gw)
{
	return gw->is_drained || gw->is_listed_draining;
}

static bool is_healthy(const struct gateway *gw)
{
	if (!gw->vip->conf->health)
		return true;
	/* While it drains it says so to the checks (503), and may: it keeps what it has. */
	if (is_draining(gw) && gw->presence.state == HEALTH_UP)
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
	if (is_draining(gw))
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
	const struct check_plan *plan = check->plan;
	bool turned, changed;

	snprintf(gw->why, sizeof(gw->why), "%s", why ? why : "");
	turned = health_report(&gw->health, !why, plan->rise, plan->fall);
	gw->transitions += turned;
	changed = health_report(&gw->presence, !why || check->has_answered, plan->rise, plan->fall);
	if (turned || changed)
		vip_mark(gw->vip);
}

/* What packets see of the gateway. The flags last: until then the entry says "unusable". */
static void gateway_write(struct gateway *gw, bool is_usable)
{
	struct nlb_gateway *entry = &gw->vip->pools->maps->gateways[gw->id];
	uint8_t flags = (uint8_t)((is_usable ? NLB_GATEWAY_USABLE : 0) |
				  (gw->hop.is_resolved ? NLB_GATEWAY_RESOLVED : 0) |
				  (gw->is_drained ? GATEWAY_FLAG_DRAINED : 0));

	entry->family = vipmap_address(entry->address, &gw->address);
	entry->vip = gw->vip->id;
	entry->encap = (uint8_t)(gw->vip->conf->encap + 1);
	entry->generation = gw->generation;
	if (gw->hop.is_resolved) {
		memcpy(entry->next_hop_mac, gw->hop.mac, 6);
		memcpy(entry->source_mac, gw->hop.source_mac, 6);
		entry->ifindex = gw->hop.ifindex;
		entry->mtu = gw->hop.mtu;
	}
	__atomic_store_n(&entry->flags, flags, __ATOMIC_RELEASE);
}

static int zero_stats(struct pools *v, uint16_t id)
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
	struct pools *v = gw->vip->pools;
	uint8_t address[16];
	uint8_t family = vipmap_address(address, &gw->address);

	for (uint16_t id = 1; id < NLB_MAX_GATEWAYS; id++) {
		const struct nlb_gateway *entry = &v->maps->gateways[id];

		if (v->by_id[id] || entry->family != family || !entry->flags ||
		    entry->vip != gw->vip->id ||
		    memcmp(entry->address, address, sizeof(address)) != 0)
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
		free(gw);
		return NULL;
	}
	list_add_tail(&vip->gateways, &gw->node);
	return gw;
}

static void gateway_remove(struct gateway *gw)
{
	struct pools *v = gw->vip->pools;
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

	gateways_for_each (gw, vip) {
		if (net_addr_eq(&gw->address, address))
			return gw;
	}
	return NULL;
}

/* --- the pool as a whole ------------------------------------------------------------------------
 */

/* Nobody is left, and everybody was asked: better to try all than to serve none. */
static bool must_panic(struct vip *vip)
{
	struct gateway *gw;
	bool any_down = false;

	gateways_for_each (gw, vip) {
		if (!gw->weight)
			continue;
		if (gw->state == GATEWAY_UP || gw->state == GATEWAY_UNKNOWN)
			return false;
		any_down |= gw->state == GATEWAY_DOWN && !is_draining(gw);
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
	bool panics = gw->vip->is_panicking;

	return (struct ring_member) {
		.id = gw->id,
		.identity = str_from(gw->ip),
		.weight = gw->weight * gw->share,
		.takes_new = gw->state == GATEWAY_UP ||
			     (panics && gw->state == GATEWAY_DOWN && !is_draining(gw)),
		/* Also while its MAC address is looked for: to lose a packet is better than to have
		 * another gateway reset the connection. */
		.takes_known = gw->state == GATEWAY_UP || gw->state == GATEWAY_DRAINING ||
			       gw->state == GATEWAY_UNRESOLVED || panics,
	};
}

static void on_ramp(struct loop_timer *timer)
{
	vip_mark(container_of(timer, struct vip, ramp));
}

/* A gateway that has come up starts slowly if others are there to carry its share. */
static void begin_ramp(struct gateway *gw)
{
	gw->ramps = false;
	if (gw->vip->conf->slow_start_s && !gw->vip->is_panicking)
		ramp_start(&gw->ramp, loop_now_ms(gw->vip->pools->loop));
}

/* Of nobody but beginners each would keep the others small for nothing. */
static bool has_full_share(struct vip *vip)
{
	struct gateway *gw;

	gateways_for_each (gw, vip) {
		if (gateway_takes_new(gw) && gw->is_listed && !gw->ramp.since_ms)
			return true;
	}
	return false;
}

static void update_ramps(struct vip *vip)
{
	uint64_t now = loop_now_ms(vip->pools->loop), next = UINT64_MAX;
	uint32_t slow_start_s = vip->conf->slow_start_s;
	bool may_ramp = slow_start_s && has_full_share(vip);
	struct gateway *gw;

	gateways_for_each (gw, vip) {
		if (gw->state != GATEWAY_UP || !may_ramp)
			gw->ramp.since_ms = 0;
		gw->share = ramp_step(&gw->ramp, slow_start_s, now);
		if (gw->share < RAMP_STEPS)
			next = MIN(next, ramp_left_ms(&gw->ramp, slow_start_s, now));
	}
	loop_timer_stop(vip->pools->loop, &vip->ramp);
	vip->ramp.on_fire = on_ramp;
	if (next != UINT64_MAX)
		loop_timer_start(vip->pools->loop, &vip->ramp, next);
}

static uint64_t ring_input(const struct ring_member *members, size_t count)
{
	uint64_t h = 1;

	for (size_t i = 0; i < count; i++) {
		const struct ring_member *m = &members[i];

		/* A sum: the order of listing has no influence on the ring. */
		h += hash_mix64(hash_mix64(m->id) + (uint64_t)m->weight * 4 +
				(uint64_t)m->takes_new * 2 + m->takes_known);
	}
	return h;
}

static void count_slots(struct vip *vip)
{
	CLEANUP(cleanup_free) uint32_t *owned = calloc(NLB_MAX_GATEWAYS, sizeof(*owned));
	struct gateway *gw;

	if (!owned || !vip->ring.slots)
		return;
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (vip->ring.slots[s].gateway < NLB_MAX_GATEWAYS)
			owned[vip->ring.slots[s].gateway]++;
	}
	gateways_for_each (gw, vip)
		gw->slots = owned[gw->id];
}

/*
 * Whether gateways are still being found healthy for the first time. That is no history: on an NLB
 * that has just been started the ring's own next choices tell better who holds the connections that
 * other NLBs have made.
 */
static bool is_beginning(struct vip *vip)
{
	struct gateway *gw;
	bool is_asking = false;

	if (!vip->begins_until_ms)
		return false;
	gateways_for_each (gw, vip)
		is_asking |= gw->state == GATEWAY_UNKNOWN || gw->state == GATEWAY_UNRESOLVED;
	if (!is_asking || loop_now_ms(vip->pools->loop) > vip->begins_until_ms)
		vip->begins_until_ms = 0; /* this ring is the last one of the beginning */
	return true;
}

static void rebuild(struct vip *vip, const struct ring_member *members, size_t count)
{
	uint64_t input = ring_input(members, count);
	int moved;

	if (vip->ring.slots && vip->ring_input == input)
		return;
	moved = ring_replace(&vip->ring, vip->pools->maps->rings, vip->id, members, count,
			     &vip->pools->ring_key, is_beginning(vip));
	if (moved < 0) {
		log_error("vip=%s: building the ring: %s; the former one stays", vip->name,
			  strerror(-moved));
		return;
	}
	vip->ring_input = input;
	count_slots(vip);
	log_debug(
		"vip=%s: pool of %zu gateways in force after %.1f ms, %d of %d slots changed owner",
		vip->name, count, (double)(clock_mono_ns() - vip->changed_ns) / 1e6, moved,
		NLB_RING_SLOTS);
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

void vip_flush(struct vip *vip)
{
	CLEANUP(cleanup_free) struct ring_member *members = NULL;
	struct gateway *gw;
	size_t count = 0, listed = 0;

	vip->is_dirty = false;
	if (vip->is_waiting)
		return;
	gateways_for_each (gw, vip) {
		enum gateway_state before = gw->state;

		gw->state = state_of(gw);
		gw->ramps |= gw->state == GATEWAY_DOWN;
		if (gw->state == GATEWAY_UP && gw->ramps)
			begin_ramp(gw);
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
	update_ramps(vip);

	gateways_for_each (gw, vip) {
		struct ring_member m = ring_member(gw);

		if (!gw->is_listed)
			continue;
		members[count++] = m;
		/* Those that come into use have to be complete before the ring names them ... */
		if (m.takes_known)
			gateway_write(gw, true);
	}
	rebuild(vip, members, count);
	vip->changed_ns = 0;
	/* ... and those that go out of use are switched off when it no longer does. */
	gateways_for_each (gw, vip) {
		if (!ring_member(gw).takes_known)
			gateway_write(gw, false);
	}
	remove_unlisted(vip);
}

static void set_check(struct gateway *gw)
{
	const struct vip *vip = gw->vip;

	if (vip->plan) {
		/* Whoever is in use when checks are switched on stays so until the first result. */
		if (!gw->check.is_running)
			gw->was_usable |= gw->state == GATEWAY_UP || gw->state == GATEWAY_DRAINING;
		check_start(&gw->check, &vip->pools->tools, vip->plan, &gw->address, &gw->hop);
		return;
	}
	check_stop(&gw->check);
	gw->health = gw->presence = (struct health) { 0 };
}

int vip_plan(const struct pools *v, const struct nlb_conf_vip *conf, struct check_plan **out,
	     struct err *err)
{
	char name[NLB_NAME_MAX];

	*out = NULL;
	if (!conf->health)
		return 0;
	vip_set_name(name, conf->name);
	if (conf->health->tunnel && !v->tools.prober)
		return err_set(err, -EPERM, "vip=%s: %s", name, v->no_prober.text);
	*out = check_plan_new(conf, err);
	return *out ? 0 : -EINVAL;
}

void vip_configure(struct vip *vip, const struct nlb_conf_vip *conf, struct check_plan *plan)
{
	struct check_plan *former = vip->plan;
	struct gateway *gw;

	vip->conf = conf;
	vip_set_name(vip->name, conf->name);
	vip->plan = plan;
	gateways_for_each (gw, vip)
		set_check(gw);
	check_plan_free(&former);
}

/* A next hop helps only if the outer header can have a source address. */
static void resolve(struct gateway *gw)
{
	static const char *const no_source[] = {
		"this host has no IPv4 address for the tunnel: set source_address.ipv4",
		"this host has no IPv6 address for the tunnel: set source_address.ipv6",
	};
	const struct pools *v = gw->vip->pools;
	int is_v6 = gw->address.sa.sa_family == AF_INET6;

	neigh_resolve(v->neigh, &gw->address, &gw->hop);
	if (gw->vip->conf->encap + 1 != NLB_ENCAP_L2 && !v->maps->has_source[is_v6]) {
		gw->hop.is_resolved = false;
		gw->hop.problem = no_source[is_v6];
	}
}

/* Said once for each change of the number, not of the list. */
static void tell_without_id(struct vip *vip, size_t count, struct str first)
{
	if (count && count != vip->without_id)
		log_error("vip=%s: %zu gateways left out, \"%.*s\" first: more than %d gateways in "
			  "all",
			  vip->name, count, STR_ARG(first), NLB_MAX_GATEWAYS - 1);
	vip->without_id = count;
}

void vip_list(struct vip *vip, struct gateway_listing *list, size_t count)
{
	struct str first = STR("");
	size_t without_id = 0;
	struct gateway *gw;

	vip_mark(vip);
	gateways_for_each (gw, vip)
		gw->is_listed = false;
	count = listing_filter(list, count, vip->name, &vip->conf->address, &vip->told_left_out);
	for (size_t i = 0; i < count; i++) {
		const struct gateway_listing *l = &list[i];

		gw = gateway_find(vip, &l->address);
		if (!gw) {
			gw = gateway_add(vip, l);
			if (!gw) {
				first = without_id++ ? first : l->name;
				continue;
			}
			gw->ramps = vip->was_listed && !gw->was_usable;
			resolve(gw);
		}
		vip_set_name(gw->name, l->name);
		gw->weight = MIN(l->weight, (uint32_t)NLB_WEIGHT_MAX);
		gw->is_listed = true;
		gw->is_listed_draining = l->is_draining;
		set_check(gw);
	}
	tell_without_id(vip, without_id, first);
	if (!vip->was_listed && !vip->ring.slots)
		vip->begins_until_ms = loop_now_ms(vip->pools->loop) + BEGINNING_MAX_MS;
	vip->is_waiting = false;
	vip->was_listed = true;
}

static bool hop_changed(const struct next_hop *a, const struct next_hop *b)
{
	return a->is_resolved != b->is_resolved || a->ifindex != b->ifindex || a->mtu != b->mtu ||
	       memcmp(a->mac, b->mac, 6) != 0 || memcmp(a->source_mac, b->source_mac, 6) != 0;
}

void vip_resolve(struct vip *vip)
{
	struct gateway *gw;

	gateways_for_each (gw, vip) {
		struct next_hop before = gw->hop;

		resolve(gw);
		if (hop_changed(&before, &gw->hop))
			vip_mark(vip);
	}
}

void vip_clear(struct vip *vip, bool keeps_maps)
{
	loop_timer_stop(vip->pools->loop, &vip->ramp);
	while (!list_empty(&vip->gateways)) {
		struct gateway *gw = container_of(vip->gateways.next, struct gateway, node);

		if (!keeps_maps) {
			gateway_remove(gw);
			continue;
		}
		check_stop(&gw->check);
		list_remove(&gw->node);
		free(gw);
	}
	check_plan_free(&vip->plan);
	ring_release(&vip->ring);
}
