/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/announce.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/list.h"
#include "lib/log.h"
#include "nlb/address.h"
#include "nlb/vips.h"

#define REFRESH_MS 2000
/* Protocol numbers of addresses that nobody else uses: the upper half, one for each interface. */
#define PROTOCOL_BASE 0x80

/* One address; several VIPs may share it, with other ports. */
struct announced {
	struct list node;
	struct net_addr address; /* without a port */
	enum announce_state state;
	bool is_wanted; /* as is_served says; while false it is to go */
	bool is_served; /* some VIP on it has a gateway */
	bool is_unsure; /* some VIP on it is not known yet: leave things as they are */
	bool was_seen;  /* in the last listing */
};

struct announcer {
	struct loop *loop;
	struct loop_timer timer;
	struct list addresses;
	char interface[IF_NAMESIZE];
	uint32_t ifindex;
	struct address_mark mark;
	bool is_held; /* withdrawn by hand */
};

const char *announce_state_name(enum announce_state state)
{
	static const char *const names[] = {
		[ANNOUNCE_NO] = "no",         [ANNOUNCE_WITHDRAWN] = "withdrawn",
		[ANNOUNCE_UP] = "announced",  [ANNOUNCE_FOREIGN] = "foreign",
		[ANNOUNCE_FAILED] = "failed",
	};

	return names[state];
}

static struct announced *find(const struct announcer *a, const struct net_addr *address)
{
	struct net_addr plain = *address;

	plain.in.sin_port = 0;
	list_for_each (n, &a->addresses) {
		struct announced *one = container_of(n, struct announced, node);

		if (net_addr_eq(&one->address, &plain))
			return one;
	}
	return NULL;
}

static struct announced *find_or_add(struct announcer *a, const struct net_addr *address)
{
	struct announced *one = find(a, address);

	if (one)
		return one;
	one = calloc(1, sizeof(*one));
	if (!one)
		return NULL;
	one->address = *address;
	one->address.in.sin_port = 0;
	one->state = ANNOUNCE_WITHDRAWN;
	list_add_tail(&a->addresses, &one->node);
	return one;
}

/* --- the interface ---------------------------------------------------------------------------- */

static void put_on(const struct announcer *a, struct announced *one)
{
	int rc = address_add(a->ifindex, &one->address, &a->mark);
	enum announce_state was = one->state;
	char ip[NET_ADDR_LEN];

	net_format_ip(ip, &one->address);
	one->state = rc == 0 ? ANNOUNCE_UP : rc == -EEXIST ? ANNOUNCE_FOREIGN : ANNOUNCE_FAILED;
	if (one->state == was)
		return;
	if (rc == 0)
		log_info("announce=%s: put on %s", ip, a->interface);
	else if (rc == -EEXIST)
		log_warn(
			"announce=%s: is on %s already and not ours: it is left alone, so it stays "
			"announced without a gateway; take it off: ip address del %s dev %s",
			ip, a->interface, ip, a->interface);
	else
		log_error("announce=%s: cannot be put on %s: %s", ip, a->interface, strerror(-rc));
}

static void take_off(const struct announcer *a, struct announced *one, const char *why)
{
	int rc = address_remove(a->ifindex, &one->address);
	char ip[NET_ADDR_LEN];

	net_format_ip(ip, &one->address);
	if (rc && rc != -EADDRNOTAVAIL) {
		log_error("announce=%s: cannot be taken off %s: %s", ip, a->interface,
			  strerror(-rc));
		return;
	}
	log_warn("announce=%s: taken off %s: %s", ip, a->interface, why);
	one->state = ANNOUNCE_WITHDRAWN;
}

static void apply(const struct announcer *a, struct announced *one)
{
	bool wants_up = one->is_wanted && one->is_served && !a->is_held;

	if (wants_up && one->state != ANNOUNCE_UP) {
		put_on(a, one);
		return;
	}
	if (wants_up || (one->is_wanted && one->is_unsure && !a->is_held))
		return;
	if (one->state == ANNOUNCE_UP)
		take_off(a, one,
			 a->is_held       ? "by hand"
			 : one->is_wanted ? "no gateway can be used"
					  : "no longer wanted");
	else
		one->state = ANNOUNCE_WITHDRAWN; /* of no concern to us, whoever's it is */
}

/* --- what is wanted --------------------------------------------------------------------------- */

static void judge(const struct vip *vip, struct announced *one)
{
	const struct gateway *gw;

	one->is_wanted = true;
	one->is_unsure |= vip->is_waiting;
	if (vip->is_panicking)
		return;
	gateways_for_each (gw, vip) {
		/* Connections of those that drain would end with the announcement. */
		one->is_served |= gateway_takes_new(gw) || gw->state == GATEWAY_DRAINING;
		/* Its check, where it has one, will tell. */
		one->is_unsure |= gw->state == GATEWAY_UNKNOWN ||
				  (gw->state == GATEWAY_UNRESOLVED && vip->plan);
	}
}

void announcer_update(struct announcer *a, struct vips *vips)
{
	struct vip *vip;

	list_for_each (n, &a->addresses) {
		struct announced *one = container_of(n, struct announced, node);

		one->is_wanted = one->is_served = one->is_unsure = false;
	}
	vips_for_each (vip, vips) {
		struct announced *one = vip->conf->announce ? find_or_add(a, &vip->conf->address)
							    : NULL;

		if (one)
			judge(vip, one);
		else if (vip->conf->announce)
			log_error("vip=%s: out of memory, not announced", vip->name);
	}
	list_for_each_safe (n, &a->addresses) {
		struct announced *one = container_of(n, struct announced, node);

		apply(a, one);
		if (!one->is_wanted && one->state == ANNOUNCE_WITHDRAWN) {
			list_remove(&one->node);
			free(one);
		}
	}
}

void announcer_hold(struct announcer *a, bool withdrawn)
{
	a->is_held = withdrawn;
	list_for_each (n, &a->addresses)
		apply(a, container_of(n, struct announced, node));
}

bool announcer_is_held(const struct announcer *a)
{
	return a->is_held;
}

enum announce_state announcer_state(const struct announcer *a, const struct net_addr *address)
{
	const struct announced *one = find(a, address);

	return one ? one->state : ANNOUNCE_NO;
}

/* --- what is there ---------------------------------------------------------------------------- */

static void on_seen(uint32_t ifindex, const struct net_addr *address, bool is_ours, void *arg)
{
	const struct announcer *a = arg;
	struct announced *one = find(a, address);

	if (one && ifindex == a->ifindex && is_ours)
		one->was_seen = true;
}

/* Puts back what somebody took away, and tries again what failed. */
static void on_refresh(struct loop_timer *timer)
{
	struct announcer *a = container_of(timer, struct announcer, timer);
	int rc;

	list_for_each (n, &a->addresses)
		container_of(n, struct announced, node)->was_seen = false;
	rc = list_empty(&a->addresses) ? -ENOENT : address_list(on_seen, &a->mark, a);
	list_for_each (n, &a->addresses) {
		struct announced *one = container_of(n, struct announced, node);

		if (rc == 0 && one->state == ANNOUNCE_UP && !one->was_seen)
			one->state = ANNOUNCE_FAILED;
		apply(a, one);
	}
	loop_timer_start(a->loop, &a->timer, REFRESH_MS);
}

static void on_adopted(uint32_t ifindex, const struct net_addr *address, bool is_ours, void *arg)
{
	struct announcer *a = arg;
	struct announced *one;

	if (!is_ours)
		return;
	/* Of a former announce_interface. */
	if (ifindex != a->ifindex) {
		address_remove(ifindex, address);
		return;
	}
	one = find_or_add(a, address);
	if (one)
		one->state = ANNOUNCE_UP;
}

int announcer_new(struct announcer **out, struct loop *loop, const struct nlb_conf *conf,
		  struct err *err)
{
	struct announcer *a = calloc(1, sizeof(*a));
	uint32_t served = if_nametoindex(conf->interface.p);
	int rc;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->loop = loop;
	a->timer.on_fire = on_refresh;
	list_init(&a->addresses);
	snprintf(a->interface, sizeof(a->interface), "%s", conf->announce_interface.p);
	a->ifindex = if_nametoindex(a->interface);
	/* Two of us on one host, each for another interface, must not take each other's away. */
	snprintf(a->mark.label, sizeof(a->mark.label), "nlb:%u", served);
	a->mark.protocol = (uint8_t)(PROTOCOL_BASE | (served % PROTOCOL_BASE));
	rc = a->ifindex ? address_list(on_adopted, &a->mark, a) : -ENODEV;
	if (rc) {
		announcer_free(&a, false);
		return rc == -ENODEV ? err_set(err, rc,
					       "announce_interface: %s does not exist (ip link "
					       "shows those there are)",
					       conf->announce_interface.p)
				     : err_set(err, rc, "listing addresses: %s", strerror(-rc));
	}
	loop_timer_start(loop, &a->timer, REFRESH_MS);
	*out = a;
	return 0;
}

void announcer_free(struct announcer **ap, bool withdraws)
{
	struct announcer *a = TAKE_PTR(*ap);

	if (!a)
		return;
	loop_timer_stop(a->loop, &a->timer);
	list_for_each_safe (n, &a->addresses) {
		struct announced *one = container_of(n, struct announced, node);

		if (withdraws && one->state == ANNOUNCE_UP)
			take_off(a, one, "nlbd ends");
		list_remove(&one->node);
		free(one);
	}
	free(a);
}
