/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/pools.h"

#include <errno.h>

#include "gateway/limits/limit_setup.h"
#include "gateway/tls_setup.h"
#include "gateway/upstream/health.h"
#include "gateway/upstream/service.h"
#include "lib/http_client.h"
#include "lib/log.h"
#include "registry/client.h"

/* An app that is watched for one or more services. */
struct app {
	struct list node;
	struct pools *pools;
	struct str name;       /* lower case, behind the struct */
	struct reg_list *list; /* held; NULL until the first one came */
	bool is_used;
};

struct member {
	struct net_addr addr;
	uint16_t weight;
	bool is_near;               /* of our own zone */
	struct circuit *circuit;    /* held; kept while it is listed */
	struct health_check *check; /* NULL: not checked */
};

/* One service of the current configuration. */
struct pool {
	struct pools *pools;
	const struct gw_service *conf;
	struct tls_client *tls;  /* for health checks; NULL: in clear */
	struct circuit *circuit; /* held; kept while a service has this name */
	struct member *members;
	size_t count;
};

struct pools {
	struct gateway *gateway;
	struct snapshot *snapshot; /* held: pool.conf points into it */
	struct reg_client *registry;
	struct reg_self *self;
	struct http_client *http; /* for health checks */
	struct list apps;
	struct pool *pools;
	size_t count;
};

/* --- to the workers
 * -----------------------------------------------------------------------------------------------------
 */

static void pool_publish(const struct pool *p)
{
	const struct gateway *g = p->pools->gateway;
	struct service_member *members = calloc(p->count + 1, sizeof(*members));

	if (!members)
		abort();
	for (size_t i = 0; i < p->count; i++) {
		members[i].addr = p->members[i].addr;
		members[i].weight = p->members[i].weight;
		members[i].is_failing = p->members[i].check && !health_is_up(p->members[i].check);
		members[i].is_near = p->members[i].is_near;
		members[i].circuit = p->members[i].circuit;
	}
	for (unsigned i = 0; i < g->worker_count; i++)
		worker_post_members(g->workers[i], p->conf->name, p->circuit, members, p->count);
	free(members);
}

static void on_health(struct health_check *check, bool is_up, const char *why, void *arg)
{
	const struct pool *p = arg;
	char addr[NET_ADDR_LEN];

	net_format(addr, health_address(check));
	if (is_up)
		log_info("service=%.*s instance=%s: healthy again", STR_ARG(p->conf->name), addr);
	else
		log_warn("service=%.*s instance=%s: unhealthy: %s", STR_ARG(p->conf->name), addr,
			 why);
	pool_publish(p);
}

/* --- lists
 * ------------------------------------------------------------------------------------------------------------------
 */

static void pool_free_members(struct pool *p)
{
	for (size_t i = 0; i < p->count; i++) {
		health_stop(&p->members[i].check);
		circuit_put(&p->members[i].circuit);
	}
	free(p->members);
	p->members = NULL;
	p->count = 0;
}

static struct circuit *must_have(struct circuit *c)
{
	if (!c)
		abort(); /* only at start, reload, or with a new list */
	return c;
}

/* What is known of an instance that stays. */
static void member_inherit(struct member *m, struct pool *p)
{
	for (size_t i = 0; i < p->count && !m->circuit; i++) {
		if (!net_addr_eq(&m->addr, &p->members[i].addr))
			continue;
		m->circuit = TAKE_PTR(p->members[i].circuit);
		if (p->conf->health.is_on)
			m->check = TAKE_PTR(p->members[i].check);
	}
	if (!m->circuit)
		m->circuit = must_have(circuit_new());
}

static bool is_own_zone(const struct pool *p, struct str zone)
{
	struct str own = p->pools->snapshot->conf.zone;

	return own.p && zone.p && str_eq(own, zone);
}

/* Replaces the members; checks of those that stay go on with what they know. */
static void pool_replace(struct pool *p, struct member *fresh, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		member_inherit(&fresh[i], p);
		if (!fresh[i].check && p->conf->health.is_on)
			fresh[i].check = health_start(p->pools->http, p->pools->gateway->loop,
						      &p->conf->health, &fresh[i].addr, on_health,
						      p);
		if (fresh[i].check)
			health_use_tls(fresh[i].check, p->tls);
	}
	pool_free_members(p);
	p->members = fresh;
	p->count = count;
	pool_publish(p);
}

static void pool_use_list(struct pool *p, const struct reg_list *list)
{
	struct member *fresh = calloc(list->count + 1, sizeof(*fresh));
	size_t n = 0;

	if (!fresh)
		abort();
	for (size_t i = 0; i < list->count; i++) {
		const struct reg_instance *instance = &list->instances[i];

		if (reg_instance_status(instance) != REG_UP ||
		    reg_instance_addr(instance, &fresh[n].addr) < 0)
			continue;
		fresh[n].is_near = is_own_zone(p, instance->zone);
		fresh[n++].weight = instance->weight;
	}
	log_info("service=%.*s: %zu of %zu instances of %.*s are up%s", STR_ARG(p->conf->name), n,
		 list->count, STR_ARG(list->app),
		 list->is_from_cache ? " (from the cache file)" : "");
	pool_replace(p, fresh, n);
}

static void pool_use_conf(struct pool *p)
{
	struct member *fresh = calloc(p->conf->endpoints_count + 1, sizeof(*fresh));

	if (!fresh)
		abort();
	for (size_t i = 0; i < p->conf->endpoints_count; i++) {
		fresh[i].addr = p->conf->endpoints[i].address;
		fresh[i].weight = p->conf->endpoints[i].weight;
		fresh[i].is_near = is_own_zone(p, p->conf->endpoints[i].zone);
	}
	pool_replace(p, fresh, p->conf->endpoints_count);
}

/* --- the registry
 * ---------------------------------------------------------------------------------------------------------------
 */

static void on_list(struct reg_list *list, void *arg)
{
	struct app *app = arg;
	struct pools *p = app->pools;

	reg_list_unref(&app->list);
	app->list = reg_list_ref(list);
	for (size_t i = 0; i < p->count; i++) {
		if (p->pools[i].conf->discover.p && str_ieq(p->pools[i].conf->discover, app->name))
			pool_use_list(&p->pools[i], list);
	}
	if (str_ieq(limit_peers_app(p->gateway, &p->gateway->snapshot->conf), app->name))
		limit_use_peers(p->gateway, list);
}

static void on_registry(enum reg_client_event event, const char *detail, void *arg)
{
	(void)arg;
	switch (event) {
	case REG_CLIENT_CONNECTED:
		log_info("registry: connected to %s", detail);
		break;
	case REG_CLIENT_LOST:
		log_warn("registry: lost: %s; going on with the last known instances", detail);
		break;
	case REG_CLIENT_CACHE:
		log_warn("registry: cache file: %s", detail);
		break;
	case REG_CLIENT_SELF:
		log_error("registry: registration refused: %s", detail);
		break;
	}
}

static struct app *find_app(struct pools *p, struct str name)
{
	list_for_each (node, &p->apps) {
		struct app *app = container_of(node, struct app, node);

		if (str_ieq(app->name, name))
			return app;
	}
	return NULL;
}

static void app_free(struct app *app)
{
	list_remove(&app->node);
	reg_list_unref(&app->list);
	free(app);
}

static struct app *app_watch(struct pools *p, struct str name)
{
	struct app *app = calloc(1, sizeof(*app) + name.len);

	if (!app)
		abort();
	memcpy(app + 1, name.p, name.len);
	app->name = str_of((char *)(app + 1), name.len);
	app->pools = p;
	list_add_tail(&p->apps, &app->node);
	if (reg_client_watch(p->registry, app->name, on_list, app) < 0)
		log_error("registry: cannot watch %.*s", STR_ARG(name));
	return app;
}

static struct app *use_app(struct pools *p, struct str name)
{
	struct app *app = find_app(p, name);

	if (!app)
		app = app_watch(p, name);
	app->is_used = true;
	return app;
}

/* Watches exactly the apps that some service names, and the one whose limits we share. */
static void update_watches(struct pools *p)
{
	struct str peers = limit_peers_app(p->gateway, &p->gateway->snapshot->conf);

	list_for_each (node, &p->apps)
		container_of(node, struct app, node)->is_used = false;
	for (size_t i = 0; i < p->count; i++) {
		struct str name = p->pools[i].conf->discover;
		struct app *app;

		if (!name.p)
			continue;
		app = use_app(p, name);
		if (app->list)
			pool_use_list(&p->pools[i], app->list);
	}
	if (peers.p)
		use_app(p, peers);
	list_for_each_safe (node, &p->apps) {
		struct app *app = container_of(node, struct app, node);

		if (app->is_used)
			continue;
		reg_client_unwatch(p->registry, app->name);
		app_free(app);
	}
}

static struct reg_client_access registry_access(const struct gw_registry *conf)
{
	return (struct reg_client_access) {
		.token = conf->token.p,
		.ca = conf->tls.ca.p,
		.certificate = conf->tls.certificate.p,
		.key = conf->tls.key.p,
	};
}

static int connect_registry(struct pools *p, struct err *err)
{
	const struct gw_registry *conf = p->gateway->snapshot->conf.registry;
	struct reg_client_config config = { .on_event = on_registry };

	if (!conf)
		return 0;
	config.urls = conf->urls;
	config.url_count = conf->urls_count;
	config.cache = conf->cache.p;
	config.access = registry_access(conf);
	p->registry = reg_client_new(p->gateway->loop, &config, err);
	return p->registry ? 0 : -EINVAL;
}

/* --- life
 * ----------------------------------------------------------------------------------------------------------------------
 */

struct pools *pools_new(struct gateway *g, struct err *err)
{
	struct pools *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	p->gateway = g;
	list_init(&p->apps);
	p->http = http_client_new(g->loop, 64);
	if (!p->http || connect_registry(p, err) < 0) {
		pools_free(&p);
		return NULL;
	}
	return p;
}

static void drop_pools(struct pool *pools, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		pool_free_members(&pools[i]);
		circuit_put(&pools[i].circuit);
		tls_client_free(&pools[i].tls);
	}
	free(pools);
}

/* What the checks found out survives a reload, or each would send requests to instances that are
 * known to be dead. */
static void pool_inherit(struct pool *fresh, struct pool *old, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!str_eq(old[i].conf->name, fresh->conf->name))
			continue;
		fresh->circuit = TAKE_PTR(old[i].circuit);
		fresh->count = old[i].count;
		fresh->members = TAKE_PTR(old[i].members);
		old[i].count = 0;
		for (size_t j = 0; j < fresh->count; j++) {
			if (!fresh->conf->health.is_on)
				health_stop(&fresh->members[j].check);
			if (!fresh->members[j].check)
				continue;
			health_adopt(fresh->members[j].check, &fresh->conf->health, fresh);
			health_use_tls(fresh->members[j].check, fresh->tls);
		}
		return;
	}
}

void pools_free(struct pools **pp)
{
	struct pools *p = *pp;

	if (!p)
		return;
	*pp = NULL;
	drop_pools(p->pools, p->count);
	list_for_each_safe (node, &p->apps)
		app_free(container_of(node, struct app, node));
	reg_client_free(&p->registry);
	http_client_free(&p->http);
	snapshot_put(&p->snapshot);
	free(p);
}

/* A check sees what requests would see: the same policy. */
static struct tls_client *pool_tls(const struct pools *p, const struct gw_service *conf)
{
	struct tls_client *tls;
	struct err err;

	if (!conf->tls || !conf->health.is_on)
		return NULL;
	tls = tls_setup_service(conf, p->gateway->tls_files, false, &err);
	if (!tls)
		abort();
	return tls;
}

void pools_update(struct pools *p)
{
	struct snapshot *snapshot = p->gateway->snapshot, *old_snapshot = p->snapshot;
	const struct gw_conf *conf = &snapshot->conf;
	struct pool *old = p->pools;
	size_t old_count = p->count;

	p->snapshot = snapshot_ref(snapshot);
	p->pools = calloc(conf->services_count + 1, sizeof(*p->pools));
	if (!p->pools)
		abort();
	p->count = conf->services_count;
	for (size_t i = 0; i < p->count; i++) {
		p->pools[i].pools = p;
		p->pools[i].conf = &conf->services[i];
		p->pools[i].tls = pool_tls(p, &conf->services[i]);
		pool_inherit(&p->pools[i], old, old_count);
		if (!p->pools[i].circuit)
			p->pools[i].circuit = must_have(circuit_new());
	}
	drop_pools(old, old_count);
	snapshot_put(&old_snapshot);
	for (size_t i = 0; i < p->count; i++) {
		if (!p->pools[i].conf->discover.p)
			pool_use_conf(&p->pools[i]);
	}
	if (p->registry && conf->registry) {
		struct reg_client_access access = registry_access(conf->registry);
		struct err err;

		if (reg_client_set_access(p->registry, &access, &err) < 0)
			log_error("registry: %s; going on as before", err.text);
	}
	if (p->registry)
		update_watches(p);
}

bool pools_are_ready(const struct pools *p)
{
	return !p->registry || reg_client_is_ready(p->registry);
}

/* Pairs in the registry client's form: "key NUL value NUL". */
static void write_metadata(const struct gw_register *conf, struct buf *out)
{
	for (size_t i = 0; i < conf->metadata_count; i++) {
		buf_add(out, conf->metadata[i].name);
		buf_putc(out, '\0');
		buf_add(out, conf->metadata[i].value);
		buf_putc(out, '\0');
	}
}

static struct str or_empty(struct str s)
{
	return s.p ? s : STR("");
}

int pools_register(struct pools *p, struct err *err)
{
	const struct gw_conf *all = &p->gateway->snapshot->conf;
	const struct gw_register *conf = all->registry ? all->registry->register_as : NULL;
	struct reg_instance instance = { .status = REG_UP };
	struct buf metadata, id;

	if (!conf || p->self)
		return 0;
	buf_init(&metadata, REG_METADATA_BYTES);
	buf_init(&id, 0);
	write_metadata(conf, &metadata);
	buf_printf(&id, "%.*s:%u", STR_ARG(conf->address), conf->port);
	instance.id = conf->id.p ? conf->id : buf_str(&id);
	instance.address = conf->address;
	instance.zone = or_empty(conf->zone);
	instance.version = or_empty(conf->version);
	instance.metadata = buf_str(&metadata);
	instance.lease_s = conf->lease_s;
	instance.port = conf->port;
	instance.weight = conf->weight;
	instance.is_secure = all->listeners[0].tls != NULL;
	p->self = reg_self_start(p->registry, conf->app, &instance, err);
	buf_fini(&metadata);
	buf_fini(&id);
	return p->self ? 0 : -EINVAL;
}

void pools_leave(struct pools *p)
{
	if (p->self)
		reg_self_set_status(p->self, REG_OUT_OF_SERVICE);
}

void pools_let_go(struct pools *p)
{
	reg_self_forget(&p->self);
}

void pools_deregister(struct pools *p, void (*on_done)(void *arg), void *arg)
{
	if (p->self)
		reg_self_stop(&p->self, on_done, arg);
	else
		on_done(arg);
}

void pools_each_member(const struct pools *p, struct str service,
		       void (*fn)(const struct pool_member_status *m, void *arg), void *arg)
{
	for (size_t i = 0; i < p->count; i++) {
		const struct pool *pool = &p->pools[i];

		for (size_t j = 0; str_eq(pool->conf->name, service) && j < pool->count; j++) {
			struct pool_member_status status = {
				.addr = pool->members[j].addr,
				.weight = pool->members[j].weight,
				.is_checked = pool->members[j].check != NULL,
				.is_failing = pool->members[j].check &&
					      !health_is_up(pool->members[j].check),
				.is_near = pool->members[j].is_near,
			};

			fn(&status, arg);
		}
	}
}

void pools_get_circuit(const struct pools *p, struct str service, struct circuit_status *out)
{
	*out = (struct circuit_status) { 0 };
	for (size_t i = 0; i < p->count; i++) {
		if (str_eq(p->pools[i].conf->name, service))
			circuit_get_status(p->pools[i].circuit, loop_now_ms(p->gateway->loop), out);
	}
}

struct reg_client *pools_registry(const struct pools *p)
{
	return p->registry;
}
