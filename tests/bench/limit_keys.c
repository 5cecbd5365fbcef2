/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of rate limits that meets a million keys, and then a million others: what a check costs,
 * the longest one, and the memory. With a URL the keys are counted in that Redis.
 *
 * usage: limit_keys KEYS [REDIS_URL]
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/limits/limit_store.h"
#include "gateway/limits/limits.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"

static unsigned long rss_kib(void)
{
	unsigned long pages = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%lu %lu", &pages, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

static int by_value(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static struct limit_store *store_of(const char *url)
{
	struct limit_store_options options = {
		.prefix = "gatehouse-bench:", .name = "bench", .timeout_ms = 1000, .gateways = 3
	};
	struct limit_store *store;
	struct err err;

	if (redis_url_parse(&options.url, str_from(url), &err) < 0) {
		fprintf(stderr, "limit_keys: %s\n", err.text);
		exit(2);
	}
	store = limit_store_new(&options, &err);
	if (!store || limit_store_start(store) < 0)
		exit(1);
	for (int i = 0; i < 5000 && !limit_store_is_common(store); i++)
		usleep(1000);
	return store;
}

int main(int argc, char **argv)
{
	size_t keys = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	struct limit_store *store;
	struct limits_table *table;
	struct limits_key_spec spec;
	struct limits_rule rule;
	const struct limits_rule *rules[] = { &rule };
	struct limit_store_stats stats = { .keys = 0 };
	struct limits_stats table_stats;
	struct net_addr client;
	uint32_t *took_ns;
	unsigned long before, after;
	uint64_t sum_ns = 0, admitted = 0, most_in_hand = 0;

	if (!keys) {
		fprintf(stderr, "usage: limit_keys KEYS [REDIS_URL]\n");
		return 2;
	}
	log_init("limit_keys", LOG_TEXT, LOG_WARN);
	store = argc > 2 ? store_of(argv[2]) : NULL;
	table = limits_table_new_shared(1 << 20, store);
	took_ns = malloc(2 * keys * sizeof(*took_ns));
	if (!table || !took_ns || limits_parse_key(&spec, STR("ip")) ||
	    limits_rule_init(&rule, STR("bench"), &spec, 100, 60, 0) ||
	    net_parse_ip(&client, STR("10.0.0.0"), 1) < 0)
		return 1;
	memset(took_ns, 0, 2 * keys * sizeof(*took_ns));
	before = rss_kib();
	for (size_t i = 0; i < 2 * keys; i++) {
		struct limits_subject subject = { .client = &client };
		struct limits_verdict v;
		uint64_t begun_ns = clock_mono_ns();

		client.in.sin_addr.s_addr = htonl((uint32_t)(0x0a000000 + i));
		limits_check(table, rules, 1, &subject, begun_ns, &v);
		took_ns[i] = (uint32_t)(clock_mono_ns() - begun_ns);
		sum_ns += took_ns[i];
		admitted += v.is_allowed;
		if (store && i % 4096 == 0) {
			limit_store_get_stats(store, &stats);
			most_in_hand = MAX(most_in_hand, stats.keys);
		}
	}
	after = rss_kib();
	qsort(took_ns, 2 * keys, sizeof(*took_ns), by_value);
	limits_table_stats(table, &table_stats);
	if (store)
		limit_store_get_stats(store, &stats);
	printf("{\"keys\": %zu, \"admitted\": %llu, \"mean_ns\": %llu, \"p99_ns\": %u, "
	       "\"p99999_ns\": %u, \"max_us\": %u, \"rss_kib\": %lu, \"grown_kib\": %ld, "
	       "\"slots\": %llu, \"in_hand\": %llu, \"not_told\": %llu, \"redis\": %s}\n",
	       2 * keys, (unsigned long long)admitted, (unsigned long long)(sum_ns / (2 * keys)),
	       took_ns[2 * keys * 99 / 100], took_ns[2 * keys / 100000 * 99999],
	       took_ns[2 * keys - 1] / 1000, after, (long)after - (long)before,
	       (unsigned long long)table_stats.keys, (unsigned long long)most_in_hand,
	       (unsigned long long)stats.dropped, store ? "true" : "false");
	limit_store_free(&store);
	limits_table_free(&table);
	free(took_ns);
	return 0;
}
