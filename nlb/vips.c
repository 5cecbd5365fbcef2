/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/vips.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/log.h"
#include "nlb/allow.h"

#define SETTLE_SWEEP_MS 30000

struct vips {
	struct loop *loop;
	struct pools pools;
	struct loop_timer settle;
	struct list list;
	const struct nlb_conf *conf;
	bool has_vip_id[NLB_MAX_VIPS];
	struct check_plan *plans[NLB_MAX_VIPS]; /* between vips_prepare() and vips_apply() */
	void (*on_change)(void *arg);
	void *arg;
};

void vips_observe(struct vips *v, void (*on_change)(void *arg), void *arg)
{
	v->on_change = on_change;
	v->arg = arg;
}

struct list *vips_list(struct vips *v)
{
	return &v->list;
}

struct vip *vips_find(struct vips *v, struct str name)
{
	struct vip *vip;

	vips_for_each (vip, v) {
		if (str_eqz(name, vip->name))
			return vip;
	}
	return NULL;
}

void vips_flush(struct vips *v)
{
	struct vip *vip;

	vips_for_each (vip, v) {
		if (vip->is_dirty)
			vip_flush(vip);
	}
	if (v->on_change)
		v->on_change(v->arg);
}

static void on_flush(struct loop_task *task)
{
	vips_flush(container_of(task, struct vips, pools.flush));
}

static void on_settle(struct loop_timer *timer)
{
	struct vips *v = container_of(timer, struct vips, settle);
	struct vip *vip;

	vips_for_each (vip, v)
		ring_settle_in_place(&vip->ring, v->conf->settle_s);
	loop_timer_start(v->loop, &v->settle, SETTLE_SWEEP_MS);
}

static void on_neighbours(void *arg)
{
	struct vips *v = arg;
	struct vip *vip;

	vips_for_each (vip, v)
		vip_resolve(vip);
}

static int take_vip_id(struct vips *v, const struct vip_key *key)
{
	struct nlb_vip known;

	if (vipmap_get(v->pools.maps, key, &known) == 0 && known.id < NLB_MAX_VIPS &&
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
		if (bpf_map_lookup_elem(v->pools.maps->rings, &id, &inner) == 0)
			bpf_map_delete_elem(v->pools.maps->rings, &id);
		v->has_vip_id[id] = true;
		return (int)id;
	}
	return -ENOSPC;
}

static int write_vip(struct vip *vip)
{
	const struct nlb_maps *maps = vip->pools->maps;
	struct vip_key address = vip_key_address(&vip->key);
	struct nlb_vip value = { .id = vip->id, .encap = (uint8_t)(vip->conf->encap + 1) };
	struct nlb_vip none = { 0 };
	int rc;

	if (vip->conf->allow_count)
		value.flags |= NLB_VIP_ALLOW;
	if (vip->conf->source_rate) {
		value.flags |= NLB_VIP_RATE;
		nlb_conf_source_rate_ticks(vip->conf->source_rate, maps->hz, &value.source_interval,
					   &value.source_burst);
	}
	rc = vipmap_put(maps, &address, &none);

	return rc ? rc : vipmap_put(maps, &vip->key, &value);
}

static void vip_remove(struct vips *v, struct vip *vip)
{
	__u32 key = vip->id;

	vipmap_delete(v->pools.maps, &vip->key);
	bpf_map_delete_elem(v->pools.maps->rings, &key);
	vip_clear(vip, false);
	v->has_vip_id[vip->id] = false;
	list_remove(&vip->node);
	log_info("vip=%s: removed", vip->name);
	free(vip);
}

static struct vip *find_by_key(struct vips *v, const struct vip_key *key)
{
	struct vip *vip;

	vips_for_each (vip, v) {
		if (vip_key_eq(&vip->key, key))
			return vip;
	}
	return NULL;
}

static bool is_configured(const struct nlb_conf *conf, const struct vip_key *key)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct vip_key k = vip_key_of(&conf->vips[i]);

		if (!key->protocol)
			k = vip_key_address(&k);
		if (vip_key_eq(&k, key))
			return true;
	}
	return false;
}

/* Entries of VIPs that are configured no more, also those left by an earlier nlbd. */
static void remove_stale_vips(struct vips *v, const struct nlb_conf *conf)
{
	const struct nlb_maps *maps = v->pools.maps;
	struct vip_key keys[VIPMAP_MAX];
	struct list *at = v->list.next;
	size_t count;

	while (at != &v->list) {
		struct vip *vip = container_of(at, struct vip, node);

		at = at->next;
		if (!is_configured(conf, &vip->key))
			vip_remove(v, vip);
	}
	count = vipmap_list(maps, keys);
	for (size_t i = 0; i < count; i++) {
		struct nlb_vip value;
		__u32 id;

		if (is_configured(conf, &keys[i]))
			continue;
		if (keys[i].protocol && vipmap_get(maps, &keys[i], &value) == 0) {
			id = value.id;
			bpf_map_delete_elem(maps->rings, &id);
		}
		vipmap_delete(maps, &keys[i]);
	}
}

/* Gateways that an earlier nlbd knew and nobody lists any more. */
static void remove_stale_gateways(struct vips *v)
{
	bool is_waiting[NLB_MAX_VIPS] = { false };
	struct vip *vip;

	vips_for_each (vip, v)
		is_waiting[vip->id] = vip->is_waiting;
	for (unsigned id = 1; id < NLB_MAX_GATEWAYS; id++) {
		struct nlb_gateway *entry = &v->pools.maps->gateways[id];

		if (entry->flags && !v->pools.by_id[id] &&
		    (entry->vip >= NLB_MAX_VIPS || !is_waiting[entry->vip]))
			__atomic_store_n(&entry->flags, 0, __ATOMIC_RELEASE);
	}
}

static struct vip *vip_add(struct vips *v, const struct nlb_conf_vip *conf, int id)
{
	struct vip *vip = calloc(1, sizeof(*vip));

	if (!vip)
		return NULL;
	vip->pools = &v->pools;
	vip->conf = conf;
	vip->key = vip_key_of(conf);
	vip->id = (uint16_t)id;
	vip->ring.fd = -1;
	vip->is_waiting = conf->discover.p;
	list_init(&vip->gateways);
	list_add_tail(&v->list, &vip->node);
	vip_set_name(vip->name, conf->name);
	return vip;
}

/* Those that are in the maps already first: no other may be given their identifiers. */
static int add_vips(struct vips *v, const struct nlb_conf *conf)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct vip_key key = vip_key_of(&conf->vips[i]);
		struct vip *vip;
		int id, rc;

		if (find_by_key(v, &key))
			continue;
		id = take_vip_id(v, &key);
		if (id < 0)
			continue;
		vip = vip_add(v, &conf->vips[i], id);
		if (!vip)
			return -ENOMEM;
		rc = ring_adopt(&vip->ring, v->pools.maps->rings, vip->id);
		if (rc)
			log_warn("vip=%s: the former ring cannot be read (%s): connections whose "
				 "gateway "
				 "changes now are kept by the second choice only",
				 vip->name, strerror(-rc));
	}
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct vip_key key = vip_key_of(&conf->vips[i]);
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

/* Last of all: a packet that finds its VIP also finds a ring. */
static int write_vips(struct vips *v, struct err *err)
{
	struct allow_list lists[NLB_MAX_VIPS];
	size_t count = 0;
	struct vip *vip;
	int rc;

	vips_for_each (vip, v) {
		rc = allow_add(v->pools.maps, vip->id, vip->conf);
		if (!rc)
			rc = write_vip(vip);
		if (rc)
			return err_set(err, rc, "vip=%s: writing to the BPF maps: %s", vip->name,
				       strerror(-rc));
		lists[count++] = (struct allow_list) { vip->id, vip->conf };
	}
	allow_sweep(v->pools.maps, lists, count);
	return 0;
}

static void plans_free(struct vips *v)
{
	for (size_t i = 0; i < NLB_MAX_VIPS; i++)
		check_plan_free(&v->plans[i]);
}

int vips_prepare(struct vips *v, const struct nlb_conf *conf, struct err *err)
{
	int rc = 0;

	plans_free(v);
	for (size_t i = 0; i < conf->vips_count && !rc; i++)
		rc = vip_plan(&v->pools, &conf->vips[i], &v->plans[i], err);
	return rc;
}

static void configure_vip(struct vips *v, const struct nlb_conf_vip *conf, struct check_plan **plan)
{
	struct vip_key key = vip_key_of(conf);
	struct vip *vip = find_by_key(v, &key);

	if (!vip)
		return;
	vip_configure(vip, conf, TAKE_PTR(*plan));
	if (!conf->discover.p)
		list_from_conf(vip);
	vip_mark(vip);
}

int vips_apply(struct vips *v, const struct nlb_conf *conf, struct err *err)
{
	uint64_t unused[NLB_HASH_KEYS];
	int added, rc;

	v->conf = conf;
	nlb_conf_hash_keys(conf, &v->pools.ring_key, unused);
	remove_stale_vips(v, conf);
	added = add_vips(v, conf);
	/* Those that are there also when another could not be added: the former one goes away. */
	for (size_t i = 0; i < conf->vips_count; i++)
		configure_vip(v, &conf->vips[i], &v->plans[i]);
	plans_free(v);
	remove_stale_gateways(v);
	vips_flush(v);
	rc = write_vips(v, err);
	return added ? err_set(err, added, "out of memory for the VIPs") : rc;
}

int vips_drain(struct vips *v, struct str vip_name, struct str name, bool drained, struct err *err)
{
	struct vip *vip = vips_find(v, vip_name);
	struct gateway *gw;

	if (!vip)
		return err_set(err, -ENOENT,
			       "there is no VIP named \"%.*s\" (nlbctl vips lists them)",
			       STR_ARG(vip_name));
	gateways_for_each (gw, vip) {
		if (!str_eqz(name, gw->name) && !str_eqz(name, gw->ip))
			continue;
		if (gw->is_drained == drained)
			return -EALREADY;
		gw->is_drained = drained;
		vip_mark(vip);
		return 0;
	}
	return err_set(err, -ENOENT, "VIP %s has no gateway \"%.*s\" (nlbctl gateways lists them)",
		       vip->name, STR_ARG(name));
}

bool vips_are_settled(struct vips *v)
{
	struct gateway *gw;
	struct vip *vip;

	vips_for_each (vip, v) {
		if (vip->is_waiting)
			return false;
		gateways_for_each (gw, vip) {
			/* Without checks only ARP could tell, which may never come. */
			if (gw->state == GATEWAY_UNKNOWN ||
			    (gw->state == GATEWAY_UNRESOLVED && vip->plan))
				return false;
		}
	}
	return true;
}

bool vips_are_ready(struct vips *v, struct err *why)
{
	struct vip *vip;

	vips_for_each (vip, v) {
		bool is_ready = vip->is_waiting && vip->ring.slots;
		struct gateway *gw;

		gateways_for_each (gw, vip)
			is_ready |= gateway_takes_new(gw);
		if (!is_ready) {
			err_set(why, 0, "vip=%s: no gateway takes new connections", vip->name);
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
	v->pools.maps = &loader->maps;
	v->pools.loop = loop;
	v->pools.tools = (struct check_tools) { .loop = loop, .client = client };
	/* Not every configuration wants it, so a failure is told when one does. */
	prober_new(&v->pools.tools.prober, loop, loader, &v->pools.no_prober);
	v->pools.next_id = 1;
	v->pools.flush.run = on_flush;
	v->settle.on_fire = on_settle;
	list_init(&v->list);
	if (neigh_new(&v->pools.neigh, loop, on_neighbours, v, err) != 0) {
		prober_free(&v->pools.tools.prober);
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
	loop_cancel(&v->pools.flush);
	while (!list_empty(&v->list)) {
		struct vip *vip = container_of(v->list.next, struct vip, node);

		vip_clear(vip, true);
		list_remove(&vip->node);
		free(vip);
	}
	plans_free(v);
	neigh_free(&v->pools.neigh);
	prober_free(&v->pools.tools.prober);
	free(v);
	*vp = NULL;
}
