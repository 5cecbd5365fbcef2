/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "nlb/loader.h"

#define SWEEP_MIN_MS 1000
#define SWEEP_MAX_MS 3600000

/*
 * The map can be asked for the longest match only, and listing it takes a system call or two for
 * each entry: too long for every change of a list that grows by thousands in an attack.
 */
struct entry {
	struct hmap_node node;
	struct nlb_prefix_key key;
	uint64_t until; /* as in the map */
};

struct blocks {
	struct loop *loop;
	struct loader *loader;
	struct loop_timer sweep;
	struct hmap entries;
	uint64_t next; /* the earliest `until`; 0: none runs out */
};

struct block {
	struct nlb_prefix_key key;
	struct nlb_block value;
};

static int map_of(const struct blocks *b)
{
	return b->loader->maps.blocked;
}

/* All entries with their counts. NULL when out of memory or when there are none. */
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

static uint64_t hash_key(const struct nlb_prefix_key *key)
{
	uint64_t words[2];

	memcpy(words, key->address, sizeof(words));
	return hash_mix64(hash_mix64(words[0] + key->prefix_len) + words[1]);
}

static struct entry *find(const struct blocks *b, const struct nlb_prefix_key *key)
{
	uint64_t hash = hash_key(key);

	for (struct hmap_node *n = hmap_first(&b->entries, hash); n; n = hmap_next(n)) {
		struct entry *e = container_of(n, struct entry, node);

		if (memcmp(&e->key, key, sizeof(*key)) == 0)
			return e;
	}
	return NULL;
}

static struct entry *add_entry(struct blocks *b, const struct nlb_prefix_key *key)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->key = *key;
	if (hmap_insert(&b->entries, &e->node, hash_key(key)) == 0)
		return e;
	free(e);
	return NULL;
}

static void remove_entry(struct blocks *b, struct entry *e)
{
	hmap_remove(&b->entries, &e->node);
	free(e);
}

/* Says to the program whether there is anything to look for, and sets the timer. */
static void update(struct blocks *b)
{
	uint64_t now = loader_clock(b->loader), wait_ms;

	loader_set_flag(b->loader, NLB_CONFIG_BLOCKED, b->entries.count > 0);
	loop_timer_stop(b->loop, &b->sweep);
	if (!b->next)
		return;
	wait_ms = b->next > now ? (b->next - now) * 1000 / b->loader->maps.hz + 1 : 0;
	loop_timer_start(b->loop, &b->sweep,
			 MAX(MIN(wait_ms, (uint64_t)SWEEP_MAX_MS), (uint64_t)SWEEP_MIN_MS));
}

static void note_end(struct blocks *b, uint64_t until)
{
	if (until && (!b->next || until < b->next))
		b->next = until;
}

/* Tells how many packets it was good for. */
static void end(struct blocks *b, struct entry *e)
{
	struct nlb_block value = { 0 };
	char text[NET_ADDR_LEN];

	bpf_map_lookup_elem(map_of(b), &e->key, &value);
	bpf_map_delete_elem(map_of(b), &e->key);
	log_info("blocked=%s: its time is over, %llu packets were dropped", format(text, &e->key),
		 (unsigned long long)value.dropped);
	remove_entry(b, e);
}

/* Removes what is over, and comes back when the next one will be. */
static void on_sweep(struct loop_timer *timer)
{
	struct blocks *b = container_of(timer, struct blocks, sweep);
	uint64_t now = loader_clock(b->loader);

	b->next = 0;
	hmap_for_each (n, &b->entries) {
		struct entry *e = container_of(n, struct entry, node);

		if (e->until && e->until <= now)
			end(b, e);
		else
			note_end(b, e->until);
	}
	update(b);
}

struct blocks *blocks_new(struct loop *loop, struct loader *loader)
{
	struct blocks *b = calloc(1, sizeof(*b));
	CLEANUP(cleanup_free) struct block *all = NULL;
	size_t count;

	if (!b)
		return NULL;
	b->loop = loop;
	b->loader = loader;
	b->sweep.on_fire = on_sweep;
	all = read_all(b, &count);
	for (size_t i = 0; i < count; i++) {
		struct entry *e = add_entry(b, &all[i].key);

		if (!e) {
			blocks_free(&b);
			return NULL;
		}
		e->until = all[i].value.until;
	}
	on_sweep(&b->sweep);
	return b;
}

void blocks_free(struct blocks **bp)
{
	struct blocks *b = TAKE_PTR(*bp);

	if (!b)
		return;
	loop_timer_stop(b->loop, &b->sweep);
	hmap_for_each (n, &b->entries)
		remove_entry(b, container_of(n, struct entry, node));
	hmap_fini(&b->entries);
	free(b);
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
	struct entry *e = find(b, &key);
	char text[NET_ADDR_LEN];
	bool is_new = !e;
	int rc;

	format(text, &key);
	if (prefix->bits == 0 || holds_all_ipv4(prefix))
		return err_set(err, -EINVAL, "%s would block every source", text);
	if (for_s > BLOCKS_FOR_MAX_S)
		return err_set(err, -EINVAL, "for_s: at most %llu seconds (a year)",
			       (unsigned long long)BLOCKS_FOR_MAX_S);
	if (is_new)
		e = add_entry(b, &key);
	else
		bpf_map_lookup_elem(map_of(b), &key, &value); /* keeps its count */
	if (!e)
		return err_set(err, -ENOMEM, "out of memory");
	value.until = for_s ? loader_clock(b->loader) + for_s * b->loader->maps.hz : 0;
	if (bpf_map_update_elem(map_of(b), &key, &value, BPF_ANY) != 0) {
		rc = -errno;
		if (is_new)
			remove_entry(b, e);
		return err_set(err, rc,
			       rc == -ENOSPC ? "%s: the block list is full"
					     : "%s: writing to the BPF map failed",
			       text);
	}
	e->until = value.until;
	if (for_s)
		log_info("blocked=%s: for %llu s", text, (unsigned long long)for_s);
	else
		log_info("blocked=%s: until it is unblocked", text);
	note_end(b, e->until);
	update(b);
	return 0;
}

/* The entry with the longest prefix that is shorter than this one and holds it. */
static const struct entry *find_wider(const struct blocks *b, const struct net_prefix *prefix)
{
	const struct entry *e = NULL;

	for (unsigned bits = prefix->bits; bits > 0 && !e; bits--) {
		struct net_prefix cut = *prefix;
		struct nlb_prefix_key key;

		cut.bits = (uint8_t)(bits - 1);
		key = key_of(&cut);
		e = find(b, &key);
	}
	return e;
}

int blocks_remove(struct blocks *b, const struct net_prefix *prefix, struct err *err)
{
	struct nlb_prefix_key key = key_of(prefix);
	struct entry *e = find(b, &key);
	char text[NET_ADDR_LEN], by[NET_ADDR_LEN];
	const struct entry *wider;

	format(text, &key);
	if (e) {
		bpf_map_delete_elem(map_of(b), &key);
		remove_entry(b, e);
		log_info("blocked=%s: no longer", text);
		update(b);
		return 0;
	}
	wider = find_wider(b, prefix);
	if (wider)
		return err_set(err, -ENOENT,
			       "%s is not in the block list itself, but %s, which holds it, is",
			       text, format(by, &wider->key));
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
	return b->entries.count;
}
