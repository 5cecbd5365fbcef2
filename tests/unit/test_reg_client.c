/* SPDX-License-Identifier: Apache-2.0 */
/* The client against the real API, both on one loop. */
#include "registry/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/loop.h"
#include "registry/api.h"
#include "registry/client_private.h"
#include "tests/unit/unit.h"

struct registry {
	struct loop *loop;
	struct reg_store *store;
	struct reg_watch *watch;
	struct http_server *server;
	struct reg_api api;
	struct reg_writer writer;
	struct reg_conf conf; /* nobody needs a token */
	struct net_addr addr;
	bool has_no_streams;
};

struct world {
	struct loop *loop;
	struct registry registry;
	struct reg_client *client;
	struct reg_list *list;
	int lists, connected, lost, cache_problems, refused, left;
};

static void on_change(const struct reg_entry *e, enum reg_change change, void *arg)
{
	struct registry *r = arg;

	reg_watch_on_change(r->watch, e, change);
}

static void on_request(struct http_request *req, void *arg)
{
	struct registry *r = arg;

	if (r->has_no_streams && str_eq(req->path, STR("/v1/watch")))
		http_problem(req, 404, "no streams here");
	else
		reg_api_on_request(req, &r->api);
}

/* On the same port as before, if it ran before; with nothing in it. */
static void registry_start(struct registry *r, struct loop *loop)
{
	struct reg_store_config config = { .start_index = clock_wall_ms() * 1000,
					   .on_change = on_change,
					   .arg = r };
	struct http_server_config http = { .on_request = on_request, .arg = r };
	struct err err;

	r->loop = loop;
	r->store = reg_store_new(&config, loop_now_ms(loop));
	r->watch = reg_watch_new(loop, r->store);
	r->server = http_server_new(loop, &http);
	if (!r->addr.len)
		net_parse(&r->addr, STR("127.0.0.1:0"), 0);
	assert_int_equal(http_server_listen(r->server, &r->addr, 0, &err), 0);
	http_server_address(r->server, 0, &r->addr);
	reg_writer_memory_init(&r->writer, loop, r->store);
	r->api = (struct reg_api) { .access = reg_access_new(&r->conf),
				    .quotas = reg_quotas_new(),
				    .max_watches = 1000,
				    .loop = loop,
				    .writer = &r->writer,
				    .store = r->store,
				    .watch = r->watch,
				    .server = r->server,
				    .default_lease_s = 30 };
}

static void registry_stop(struct registry *r)
{
	http_server_free(&r->server);
	reg_watch_free(&r->watch);
	reg_store_free(&r->store);
	reg_access_free(&r->api.access);
	reg_quotas_free(&r->api.quotas);
}

static void put(struct registry *r, const char *id, uint16_t port)
{
	struct reg_instance i = { .id = str_from(id),
				  .address = STR("192.0.2.1"),
				  .zone = STR("z"),
				  .version = STR("1"),
				  .metadata = str_of("k\0v", 4),
				  .lease_s = 30,
				  .port = port,
				  .weight = 100,
				  .status = REG_UP };
	uint64_t index;

	assert_true(reg_store_put(r->store, STR("app"), &i, loop_now_ms(r->loop), 0, &index) >= 0);
}

static void on_list(struct reg_list *list, void *arg)
{
	struct world *w = arg;

	w->lists++;
	reg_list_unref(&w->list);
	w->list = reg_list_ref(list);
}

static void on_event(enum reg_client_event event, const char *detail, void *arg)
{
	struct world *w = arg;

	assert_true(detail[0] != '\0');
	w->connected += event == REG_CLIENT_CONNECTED;
	w->lost += event == REG_CLIENT_LOST;
	w->cache_problems += event == REG_CLIENT_CACHE;
	w->refused += event == REG_CLIENT_SELF;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->loop = loop_new();
	registry_start(&w->registry, w->loop);
	return w;
}

static void client_start(struct world *w, const char *cache, size_t dead_urls)
{
	char text[NET_ADDR_LEN], url[NET_ADDR_LEN + 16];
	struct str urls[3];
	struct reg_client_config config = { .urls = urls,
					    .url_count = 1 + dead_urls,
					    .cache = cache,
					    .on_event = on_event,
					    .arg = w };
	struct err err = { "" };

	snprintf(url, sizeof(url), "http://%s", net_format(text, &w->registry.addr));
	urls[0] = str_from(url);
	urls[1] = STR("unix:/nonexistent/1");
	urls[2] = STR("http://127.0.0.1:1");
	w->client = reg_client_new(w->loop, &config, &err);
	assert_non_null(w->client);
	assert_int_equal(reg_client_watch(w->client, STR("App"), on_list, w), 0);
}

static void world_free(struct world *w)
{
	reg_client_free(&w->client);
	registry_stop(&w->registry);
	reg_list_unref(&w->list);
	loop_free(w->loop);
	free(w);
}

/* Runs until the list has the ports, as text "80 81" in the list's order; or time is up. */
static bool has(const struct world *w, const char *want)
{
	char got[256] = "";

	for (size_t i = 0; w->list && i < w->list->count; i++) {
		char one[32];

		snprintf(one, sizeof(one), "%s%u%s", i ? " " : "", w->list->instances[i].port,
			 reg_instance_status(&w->list->instances[i]) == REG_UP ? "" : "!");
		strncat(got, one, sizeof(got) - strlen(got) - 1);
	}
	return w->list && strcmp(got, want) == 0;
}

static void until(struct world *w, const char *want)
{
	uint64_t end_ms = clock_mono_ms() + 5000;

	while (!has(w, want) && clock_mono_ms() < end_ms) {
		loop_step(w->loop, 10);
		if (w->registry.store)
			reg_store_sweep(w->registry.store, loop_now_ms(w->loop));
	}
	if (!has(w, want))
		fail_msg("wanted %s; %d lists, %zu in the last one", want, w->lists,
			 w->list ? w->list->count : 0);
}

static void run_ms(struct world *w, uint64_t ms)
{
	uint64_t end_ms = clock_mono_ms() + ms;

	while (clock_mono_ms() < end_ms) {
		loop_step(w->loop, 10);
		if (w->registry.store)
			reg_store_sweep(w->registry.store, loop_now_ms(w->loop));
	}
}

static void follows_changes(void **state)
{
	struct world *w = world_new();
	const struct reg_instance *i;

	(void)state;
	put(&w->registry, "a", 80);
	client_start(w, NULL, 0);
	assert_false(reg_client_is_ready(w->client));
	until(w, "80");
	assert_true(reg_client_is_ready(w->client));
	i = &w->list->instances[0];
	assert_true(str_eq(i->address, STR("192.0.2.1")) && str_eq(i->zone, STR("z")) &&
		    str_eq(i->version, STR("1")) && str_eq(reg_metadata_get(i, "k"), STR("v")));
	put(&w->registry, "b", 81);
	put(&w->registry, "c", 82); /* in one round: one list */
	until(w, "80 81 82");
	assert_int_equal(w->lists, 2);
	reg_store_set_status(w->registry.store, STR("app"), STR("b"), REG_OUT_OF_SERVICE,
			     REG_NO_STATUS, 0);
	until(w, "80 81! 82");
	put(&w->registry, "a", 90);
	until(w, "90 81! 82");
	reg_store_remove(w->registry.store, STR("app"), STR("b"), loop_now_ms(w->loop));
	reg_store_remove(w->registry.store, STR("app"), STR("c"), loop_now_ms(w->loop));
	until(w, "90");
	reg_store_remove(w->registry.store, STR("app"), STR("a"), loop_now_ms(w->loop));
	until(w, ""); /* seen to leave: that is no outage */
	assert_int_equal(w->connected, 1);
	assert_int_equal(w->lost, 0);
	world_free(w);
}

static void keeps_the_list_while_the_registry_is_away(void **state)
{
	struct world *w = world_new();
	int lists;

	(void)state;
	put(&w->registry, "a", 80);
	put(&w->registry, "b", 81);
	client_start(w, NULL, 0);
	until(w, "80 81");
	lists = w->lists;
	registry_stop(&w->registry);
	run_ms(w, 300);
	assert_true(has(w, "80 81"));
	assert_int_equal(w->lost, 1);
	registry_start(&w->registry, w->loop); /* it has lost its memory */
	while (w->connected < 2)
		run_ms(w, 20);
	assert_true(has(w, "80 81"));
	assert_int_equal(w->lists, lists); /* and nobody was bothered */
	put(&w->registry, "b", 81);        /* the first that comes back is what there is */
	until(w, "81");
	world_free(w);
}

static void misses_nothing_after_a_short_cut(void **state)
{
	struct world *w = world_new();
	struct reg_client_status status;

	(void)state;
	put(&w->registry, "a", 80);
	put(&w->registry, "b", 81);
	client_start(w, NULL, 0);
	until(w, "80 81");
	/* Only the connections break; the registry's memory is the same. */
	http_server_free(&w->registry.server);
	reg_store_remove(w->registry.store, STR("app"), STR("a"), loop_now_ms(w->loop));
	put(&w->registry, "c", 82);
	w->registry.server = http_server_new(
		w->loop,
		&(struct http_server_config) { .on_request = on_request, .arg = &w->registry });
	assert_int_equal(http_server_listen(w->registry.server, &w->registry.addr, 0, NULL), 0);
	until(w, "81 82");
	assert_int_equal(reg_watch_stats(w->registry.watch)->resets, 1);
	reg_client_get_status(w->client, &status);
	assert_int_equal(status.reconnects, 1);
	assert_true(status.is_connected);
	world_free(w);
}

static void finds_a_living_registry(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) { /* begins with a random one */
		struct world *w = world_new();

		put(&w->registry, "a", 80);
		client_start(w, NULL, 2);
		until(w, "80");
		assert_true(w->lost <= 1);
		world_free(w);
	}
}

static void starts_cold_from_the_cache_file(void **state)
{
	char folder[] = "/tmp/gatehouse-test-XXXXXX", path[64];
	struct world *w = world_new();

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/cache", folder);
	put(&w->registry, "a", 80);
	client_start(w, path, 0);
	until(w, "80");
	assert_false(w->list->is_from_cache);
	reg_client_free(&w->client); /* writes what is due */
	reg_list_unref(&w->list);
	registry_stop(&w->registry);
	w->lists = w->connected = 0;
	client_start(w, path, 0);
	until(w, "80");
	assert_true(w->list->is_from_cache);
	assert_true(reg_client_is_ready(w->client));
	assert_true(str_eq(reg_metadata_get(&w->list->instances[0], "k"), STR("v")));
	run_ms(w, 100);
	registry_start(&w->registry, w->loop);
	put(&w->registry, "a", 80);
	while (!w->connected)
		run_ms(w, 20);
	run_ms(w, 50);
	assert_true(has(w, "80"));
	assert_false(w->list->is_from_cache); /* confirmed */
	assert_int_equal(w->cache_problems, 0);
	world_free(w);

	/* A broken file is said and else ignored. */
	w = world_new();
	assert_int_equal(truncate(path, 10), 0);
	client_start(w, path, 0);
	assert_int_equal(w->cache_problems, 1);
	put(&w->registry, "a", 80);
	until(w, "80");
	world_free(w);
	unlink(path);
	rmdir(folder);
}

static void polls_where_no_stream_is_to_be_had(void **state)
{
	struct world *w = world_new();

	(void)state;
	w->registry.has_no_streams = true;
	put(&w->registry, "a", 80);
	client_start(w, NULL, 0);
	until(w, "80");
	put(&w->registry, "b", 81);
	until(w, "80 81");
	reg_store_remove(w->registry.store, STR("app"), STR("a"), loop_now_ms(w->loop));
	reg_store_remove(w->registry.store, STR("app"), STR("b"), loop_now_ms(w->loop));
	until(w, "");
	put(&w->registry, "c", 83);
	until(w, "83");
	registry_stop(&w->registry);
	run_ms(w, 100);
	registry_start(&w->registry, w->loop);
	while (w->connected < 2)
		run_ms(w, 20);
	assert_true(has(w, "83")); /* empty, but only since it came back */
	put(&w->registry, "d", 84);
	until(w, "84");
	world_free(w);
}

static void watches_several_apps_and_lets_go(void **state)
{
	struct world *w = world_new();
	struct world other = { 0 };

	(void)state;
	put(&w->registry, "a", 80);
	client_start(w, NULL, 0);
	until(w, "80");
	assert_int_equal(reg_client_watch(w->client, STR("no such/app"), on_list, &other), -EINVAL);
	assert_int_equal(reg_client_watch(w->client, STR("other"), on_list, &other), 0);
	assert_false(reg_client_is_ready(w->client));
	while (!reg_client_is_ready(w->client))
		run_ms(w, 20);
	assert_int_equal(other.list->count, 0); /* not there yet, and that is known */
	put(&w->registry, "b", 81);
	until(w, "80 81");
	reg_client_unwatch(w->client, STR("app"));
	put(&w->registry, "c", 82);
	run_ms(w, 100);
	assert_true(has(w, "80 81"));
	reg_list_unref(&other.list);
	world_free(w);
}

static struct reg_instance self_instance(void)
{
	return (struct reg_instance) { .id = STR("gw:1/x"),
				       .address = STR("192.0.2.9"),
				       .zone = STR(""),
				       .version = STR(""),
				       .metadata = STR(""),
				       .lease_s = 1,
				       .port = 443,
				       .weight = 100,
				       .status = REG_UP };
}

static void on_left(void *arg)
{
	((struct world *)arg)->left++;
}

static void registers_itself_and_stays(void **state)
{
	struct world *w = world_new();
	struct reg_instance i = self_instance();
	struct reg_self *self;
	struct err err = { "" };

	(void)state;
	client_start(w, NULL, 0);
	self = reg_self_start(w->client, STR("app"), &i, &err);
	assert_non_null(self);
	until(w, "443");
	assert_true(reg_self_is_registered(self));
	run_ms(w, 1500); /* beyond the lease: it was renewed */
	assert_true(has(w, "443"));
	assert_true(reg_store_stats(w->registry.store)->renewals >= 3);
	reg_self_set_status(self, REG_OUT_OF_SERVICE);
	until(w, "443!");
	/* A registry that does not know us any more is told again, with the status. */
	registry_stop(&w->registry);
	registry_start(&w->registry, w->loop);
	while (!reg_store_find(w->registry.store, STR("app"), STR("gw:1/x")))
		run_ms(w, 20);
	until(w, "443!");
	reg_self_stop(&self, on_left, w);
	assert_null(self);
	until(w, "");
	while (!w->left)
		run_ms(w, 10);
	assert_int_equal(w->refused, 0);
	world_free(w);
}

static void leaves_in_time_also_without_a_registry(void **state)
{
	struct world *w = world_new();
	struct reg_instance i = self_instance();
	struct reg_self *self;
	struct err err = { "" };
	uint64_t begin_ms;

	(void)state;
	client_start(w, NULL, 0);
	self = reg_self_start(w->client, STR("app"), &i, &err);
	until(w, "443");
	registry_stop(&w->registry);
	begin_ms = clock_mono_ms();
	reg_self_stop(&self, on_left, w);
	assert_int_equal(w->left, 0); /* never from within */
	while (!w->left && clock_mono_ms() < begin_ms + 3000)
		loop_step(w->loop, 10);
	assert_int_equal(w->left, 1);
	world_free(w);
}

static void refuses_bad_configuration(void **state)
{
	struct world *w = world_new();
	struct reg_instance i = self_instance();
	const struct str urls[] = { STR("http://registry.example:8761") };
	struct reg_client_config config = { .urls = urls, .url_count = 1 };
	struct err err = { "" };

	(void)state;
	assert_null(reg_client_new(w->loop, &config, &err));
	assert_non_null(strstr(err.text, "registry.example"));
	config.url_count = 0;
	assert_null(reg_client_new(w->loop, &config, &err));
	client_start(w, NULL, 0);
	i.address = STR("gw.example");
	assert_null(reg_self_start(w->client, STR("app"), &i, &err));
	assert_non_null(strstr(err.text, "address"));
	i = self_instance();
	assert_null(reg_self_start(w->client, STR("a b"), &i, &err));
	world_free(w);
}

/* Whoever lost the same registry in the same moment comes back at different ones. */
static void spreads_reconnects(void **state)
{
	unsigned tenths[10] = { 0 };

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint64_t ms = reg_client_jitter(2000);

		assert_true(ms >= 1000 && ms <= 2000);
		tenths[MIN((ms - 1000) / 100, (uint64_t)9)]++;
	}
	for (size_t i = 0; i < CASES(tenths); i++)
		assert_true(tenths[i] > 0);
}

static void shows_its_token(void **state)
{
	struct str rights = STR("read"), apps = STR("a*");
	struct reg_conf_token token = { .name = STR("gateways"),
					.token = STR("0123456789abcdef"),
					.rights = &rights,
					.rights_count = 1,
					.apps = &apps,
					.apps_count = 1 };
	struct reg_client_access access = { .token = "not-the-right-one" };
	struct world *w = world_new();
	struct err err = { "" };

	(void)state;
	w->registry.conf = (struct reg_conf) { .tokens = &token, .tokens_count = 1 };
	reg_access_free(&w->registry.api.access);
	w->registry.api.access = reg_access_new(&w->registry.conf);
	put(&w->registry, "a", 80);
	client_start(w, NULL, 0);
	while (w->lost == 0)
		run_ms(w, 20);
	assert_int_equal(w->connected, 0);
	assert_int_equal(reg_client_set_access(w->client, &access, &err), 0);
	while (reg_access_stats(w->registry.api.access)->bad_token == 0)
		run_ms(w, 20);
	assert_null(w->list);
	access.token = "0123456789abcdef";
	assert_int_equal(reg_client_set_access(w->client, &access, &err), 0);
	until(w, "80");
	access.token = "a b";
	assert_int_equal(reg_client_set_access(w->client, &access, &err), -EINVAL);
	assert_true(err.text[0] != '\0');
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_changes),
		cmocka_unit_test(keeps_the_list_while_the_registry_is_away),
		cmocka_unit_test(misses_nothing_after_a_short_cut),
		cmocka_unit_test(finds_a_living_registry),
		cmocka_unit_test(starts_cold_from_the_cache_file),
		cmocka_unit_test(polls_where_no_stream_is_to_be_had),
		cmocka_unit_test(watches_several_apps_and_lets_go),
		cmocka_unit_test(registers_itself_and_stays),
		cmocka_unit_test(leaves_in_time_also_without_a_registry),
		cmocka_unit_test(refuses_bad_configuration),
		cmocka_unit_test(spreads_reconnects),
		cmocka_unit_test(shows_its_token),
	};

	return cmocka_run_group_tests_name("reg_client", tests, NULL, NULL);
}
