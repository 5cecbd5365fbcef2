/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "nlb/loader.h"

#define SWEEP_MIN_MS 1000
#define SWEEP_MAX_MS 3600000

struct blocks {
	struct loop *loop;
	struct loader *loader;
	struct loop_timer sweep;
};

struct block {
	struct nlb_prefix_key key;
	struct nlb_block value;
};

static int map_of(const struct blocks *b)
{
	return b->loader->maps.blocked;
}

/* All entries, so that callers may remove some. NULL when out of memory or when there are none. */
static struct block *read_all(const struct blocks *b, size_t *count)
{
	struct nlb_prefix_key key, *previous = NULL;
	struct block *all = NULL;
	size_t capacity = 0;

	*count = 0;
	while (bpf_map_get_next_key(map_of(b), previous, &key) == 0) {
		if (*count == capacity) {
			size_t larger = capacity ? capacity * 2 : 64;
			struct block *grown = realloc(all, larger * sizeof(*all));

			if (!grown)
				break;
			all = grown;
			capacity = larger;
		}
		previous = &key;
		all[*count].key = key;
		/* The longest match of an entry's own key is the entry. */
		if (bpf_map_lookup_elem(map_of(b), &key, &all[*count].value) == 0)
			++*count;
	}
	return all;
}

static struct nlb_prefix_key key_of(const struct net_prefix *prefix)
{
	struct net_prefix trimmed = *prefix;
	struct nlb_prefix_key key = { .prefix_len = prefix->bits };

	net_prefix_trim(&trimmed);
	memcpy(key.address, trimmed.bytes, sizeof(key.address));
	return key;
}

static const char *format(char out[static NET_ADDR_LEN], const struct nlb_prefix_key *key)
{
	struct net_prefix prefix = { .bits = (uint8_t)key->prefix_len };

	memcpy(prefix.bytes, key->address, sizeof(prefix.bytes));
	return net_format_prefix(out, &prefix);
}

/* Not a plain lookup: that would find a shorter prefix too. */
static bool find(const struct blocks *b, const struct nlb_prefix_key *key, struct nlb_block *out)
{
	size_t count;
	CLEANUP(cleanup_free) struct block *all = read_all(b, &count);

	for (size_t i = 0; i < count; i++) {
		if (memcmp(&all[i].key, key, sizeof(*key)) == 0) {
			*out = all[i].value;
			return true;
		}
	}
	return false;
}

/* Removes what is over, and comes back when the next one will be. */
static void sweep(struct blocks *b)
{
	size_t count, left = 0;
	CLEANUP(cleanup_free) struct block *all = read_all(b, &count);
	uint64_t now = loader_clock(b->loader), next = 0;
	char text[NET_ADDR_LEN];

	for (size_t i = 0; i < count; i++) {
		uint64_t until = all[i].value.until;

		if (until && until <= now) {
			bpf_map_delete_elem(map_of(b), &all[i].key);
			log_info("blocked=%s: its time is over, %llu packets were dropped",
				 format(text, &all[i].key),
				 (unsigned long long)all[i].value.dropped);
			continue;
		}
		left++;
		if (until && (!next || until < next))
			next = until;
	}
	loader_set_flag(b->loader, NLB_CONFIG_BLOCKED, left > 0);
	loop_timer_stop(b->loop, &b->sweep);
	if (next) {
		uint64_t wait_ms = (next - now) * 1000 / b->loader->maps.hz + 1;

		loop_timer_start(b->loop, &b->sweep,
				 MAX(MIN(wait_ms, (uint64_t)SWEEP_MAX_MS), (uint64_t)SWEEP_MIN_MS));
	}
}

static void on_sweep(struct loop_timer *timer)
{
	sweep(container_of(timer, struct blocks, sweep));
}

struct blocks *blocks_new(struct loop *loop, struct loader *loader)
{
	struct blocks *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->loop = loop;
	b->loader = loader;
	b->sweep.on_fire = on_sweep;
	sweep(b);
	return b;
}

void blocks_free(struct blocks **bp)
{
	if (!*bp)
		return;
	loop_timer_stop((*bp)->loop, &(*bp)->sweep);
	free(*bp);
	*bp = NULL;
}

/* An IPv6 prefix this short would hold the form that IPv4 addresses have in the map. */
static bool holds_all_ipv4(const struct net_prefix *prefix)
{
	static const struct net_addr v4 = { .in.sin_family = AF_INET };

	return prefix->bits <= 96 && net_prefix_has(prefix, &v4);
}

int blocks_add(struct blocks *b, const struct net_prefix *prefix, uint64_t for_s, struct err *err)
{
	struct nlb_prefix_key key = key_of(prefix);
	struct nlb_block value = { 0 };
	char text[NET_ADDR_LEN];

	format(text, &key);
	if (prefix->bits == 0 || holds_all_ipv4(prefix))
		return err_set(err, -EINVAL, "%s would block every source", text);
	if (for_s > BLOCKS_FOR_MAX_S)
		return err_set(err, -EINVAL, "for_s: at most %llu seconds (a year)",
			       (unsigned long long)BLOCKS_FOR_MAX_S);
	find(b, &key, &value);
	value.until = for_s ? loader_clock(b->loader) + for_s * b->loader->maps.hz : 0;
	if (bpf_map_update_elem(map_of(b), &key, &value, BPF_ANY) != 0)
		return err_set(err, -errno,
			       errno == ENOSPC ? "%s: the block list is full"
					       : "%s: writing to the BPF map failed",
			       text);
	if (for_s)
		log_info("blocked=%s: for %llu s", text, (unsigned long long)for_s);
	else
		log_info("blocked=%s: until it is unblocked", text);
	sweep(b);
	return 0;
}

int blocks_remove(struct blocks *b, const struct net_prefix *prefix, struct err *err)
{
	struct nlb_prefix_key key = key_of(prefix), wider;
	char text[NET_ADDR_LEN], by[NET_ADDR_LEN];
	size_t count;
	CLEANUP(cleanup_free) struct block *all = NULL;

	format(text, &key);
	if (bpf_map_delete_elem(map_of(b), &key) == 0) {
		log_info("blocked=%s: no longer", text);
		sweep(b);
		return 0;
	}
	all = read_all(b, &count);
	for (size_t i = 0; i < count; i++) {
		struct net_prefix cover = { .bits = (uint8_t)all[i].key.prefix_len };
		struct net_prefix cut = *prefix;

		if (all[i].key.prefix_len >= key.prefix_len)
			continue;
		memcpy(cover.bytes, all[i].key.address, sizeof(cover.bytes));
		cut.bits = cover.bits;
		wider = key_of(&cut);
		if (memcmp(&wider, &all[i].key, sizeof(wider)) == 0)
			return err_set(
				err, -ENOENT,
				"%s is not in the block list itself, but %s, which holds it, is",
				text, format(by, &all[i].key));
	}
	return err_set(err, -ENOENT, "%s is not blocked (nlbctl blocked lists what is)", text);
}

void blocks_write(struct blocks *b, struct json_writer *w, const char *key)
{
	size_t count;
	CLEANUP(cleanup_free) struct block *all = read_all(b, &count);
	uint64_t now = loader_clock(b->loader);
	char text[NET_ADDR_LEN];

	json_open(w, key, '[');
	for (size_t i = 0; i < count; i++) {
		uint64_t until = all[i].value.until;

		if (until && until <= now)
			continue;
		json_open(w, NULL, '{');
		json_addz(w, "cidr", format(text, &all[i].key));
		if (until)
			json_add_u64(w, "left_s",
				     (until - now + b->loader->maps.hz - 1) / b->loader->maps.hz);
		else
			json_add_null(w, "left_s");
		json_add_u64(w, "dropped", all[i].value.dropped);
		json_close(w, '}');
	}
	json_close(w, ']');
}

size_t blocks_count(const struct blocks *b)
{
	size_t count;
	CLEANUP(cleanup_free) struct block *all = read_all(b, &count);

	return count;
}
