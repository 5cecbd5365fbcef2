/* SPDX-License-Identifier: Apache-2.0 */
/* registryd: builds the parts, runs the loop, takes them down in reverse. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/daemon.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "registry/api.h"
#include "registry/checks.h"
#include "registry/conf.h"
#include "registry/shared/shared.h"
#include "registry/snapshot.h"
#include "registry/tls.h"

/* Beyond every index given out after the snapshot, whatever happened in its last second. */
#define INDEX_GAP   1000000
#define STOP_MAX_MS 5000

struct registry {
	const char *config_path;
	struct arena arena; /* of `conf` */
	struct reg_conf conf;
	struct loop *loop;
	struct reg_store *store;
	struct reg_watch *watch;
	struct reg_eureka *eureka;
	struct reg_persist *persist;
	struct reg_writer memory;
	struct reg_shared *shared; /* NULL with memory */
	struct http_server *server;
	struct reg_tls *tls;
	struct reg_checks *checks;
	struct reg_api api;
	struct loop_timer sweep, stop_deadline;
};

static const struct daemon_program program = {
	.name = "registryd",
	.summary = "service registry: which instances of a service can be used right now",
	.default_config = NULL,
	.notes = "Services register and renew a lease; gateways and load balancers watch.\n"
		 "API, probes and metrics are on one port (/v1/…, Eureka's /eureka/…, /healthz, "
		 "/readyz, /metrics, /status).\n"
		 "\n"
		 "  kill -HUP   reads the configuration again (leases, limits, tokens, TLS)\n"
		 "  kill -TERM  answers what waits, writes the snapshot, exits 0\n"
		 "\n"
		 "  registryd -c /etc/gatehouse/registry.json\n"
		 "  registryctl --url http://127.0.0.1:8761 apps\n",
};

static int conf_read(const struct daemon_options *options, struct reg_conf *out,
		     struct arena *arena)
{
	struct conf_errors errors = { 0 };
	int r = conf_load(out, &reg_conf_object, options->config, arena, &errors);

	daemon_report_conf(options, &errors);
	conf_errors_fini(&errors);
	return r;
}

/* --- callbacks ------------------------------------------------------------------------------- */

static void on_change(const struct reg_entry *entry, enum reg_change change, void *arg)
{
	struct registry *r = arg;

	reg_watch_on_change(r->watch, entry, change);
	reg_eureka_on_change(r->eureka);
	reg_checks_on_change(r->checks, entry, change);
	if (r->persist)
		reg_persist_touch(r->persist);
	if (log_is_enabled(LOG_DEBUG)) {
		static const char *const what[] = { "registered", "left", "changed status" };
		struct reg_instance i;

		reg_entry_get(entry, &i);
		log_debug("app=%s instance=%.*s: %s", reg_entry_app(entry), STR_ARG(i.id),
			  what[change]);
	}
}

static void on_preserving(bool is_preserving, void *arg)
{
	(void)arg;
	if (is_preserving)
		log_warn("self-preservation: more than half of the expected renewals are missing; "
			 "leases that run out are held, because this looks like a network cut at "
			 "the "
			 "registry");
	else
		log_info("self-preservation: ended, leases expire again");
}

static void on_failing(const char *problem, void *arg)
{
	(void)arg;
	if (problem)
		log_error("%s; serving on, trying again every 5 s", problem);
	else
		log_info("the snapshot can be written again");
}

static bool on_expire(const struct reg_entry *entry, void *arg)
{
	return reg_shared_on_expire(((struct registry *)arg)->shared, entry);
}

/* Those that are there without having come. */
static void check_all(struct registry *r)
{
	for (const struct reg_entry *e = reg_store_change_after(r->store, 0); e;
	     e = reg_store_next_change(r->store, e))
		reg_checks_on_change(r->checks, e, reg_entry_change(e));
}

static void on_shared(bool is_ready, const char *detail, void *arg)
{
	struct registry *r = arg;

	if (is_ready)
		check_all(r);
	if (!is_ready)
		log_warn("the shared store is away: %s; reads go on, nothing can be changed, no "
			 "lease runs out",
			 detail);
	else
		log_info("the shared store is ready, %zu instances%s%s",
			 reg_store_stats(r->store)->instances, *detail ? "; it was away: " : "",
			 detail);
}

static void on_news(const char *text, bool is_trouble, void *arg)
{
	(void)arg;
	log_event(is_trouble ? LOG_WARN : LOG_INFO, "shared store: %s", text);
}

static void on_sweep(struct loop_timer *timer)
{
	struct registry *r = container_of(timer, struct registry, sweep);

	reg_store_sweep(r->store, loop_now_ms(r->loop));
	loop_timer_start(r->loop, timer, r->conf.lease.sweep_ms);
}

/* --- start ----------------------------------------------------------------------------------- */

static void on_restored(struct str app, const struct reg_instance *i, void *arg)
{
	struct registry *r = arg;
	int rc = reg_store_restore(r->store, app, i, loop_now_ms(r->loop));

	if (rc < 0)
		log_warn("app=%.*s instance=%.*s: not taken over from the snapshot: %s",
			 STR_ARG(app), STR_ARG(i->id), strerror(-rc));
}

static void ignore_instance(struct str app, const struct reg_instance *i, void *arg)
{
	(void)app;
	(void)i;
	(void)arg;
}

/* A file that cannot be read at all is kept for whoever wants to look at it. */
static void set_aside(const char *path, const char *why)
{
	CLEANUP(cleanup_free) char *aside = NULL;

	if (asprintf(&aside, "%s.damaged", path) < 0 || rename(path, aside) < 0) {
		log_error("%s: %s; starting empty", path, why);
		return;
	}
	log_error("%s: %s; kept as %s, starting empty: instances register again", path, why, aside);
}

static int store_make(struct registry *r, uint64_t last_index)
{
	uint64_t beyond = last_index ? last_index + INDEX_GAP : 0;
	uint64_t now_ms = clock_wall_ms();
	/* The clock makes it new even if the snapshot was lost. */
	uint64_t start_index = MAX(beyond, now_ms);
	bool is_shared = r->conf.store.type == REG_CONF_REDIS;
	const struct reg_store_config config = {
		.start_index = is_shared ? 0 : start_index,
		.is_shared = is_shared,
		.on_expire = is_shared ? on_expire : NULL,
		.has_self_preservation = r->conf.lease.self_preservation,
		.max_instances = r->conf.limits.instances,
		.max_per_client = r->conf.limits.instances_per_client,
		.on_change = on_change,
		.on_preserving = on_preserving,
		.arg = r,
	};

	r->store = reg_store_new(&config, loop_now_ms(r->loop));
	return r->store ? 0 : -ENOMEM;
}

/* Loads the snapshot, if there is one, and makes sure that it can be written. */
static int store_start(struct registry *r, struct err *err)
{
	const char *path = r->conf.store.snapshot.p;
	struct reg_snapshot_info info = { 0 };
	struct buf bytes;
	int rc;

	if (r->conf.store.type == REG_CONF_REDIS)
		return store_make(r, 0) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
	if (!path) {
		log_warn("no store.snapshot: a restart forgets all instances until they register "
			 "again");
		return store_make(r, 0) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
	}
	buf_init(&bytes, 0);
	rc = reg_snapshot_load(path, &bytes, err);
	if (rc == 0 && reg_snapshot_decode(buf_str(&bytes), &info, ignore_instance, NULL, err) < 0)
		set_aside(path, err->text);
	if (rc == 0 || rc == -ENOENT)
		rc = store_make(r, info.index) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
	if (rc == 0 && info.read)
		reg_snapshot_decode(buf_str(&bytes), &info, on_restored, r, err);
	buf_fini(&bytes);
	if (rc < 0)
		return rc;
	if (info.read < info.count)
		log_error("%s: cut off or damaged behind %" PRIu64 " of %" PRIu64
			  " instances; the others register again",
			  path, info.read, info.count);
	else if (info.count)
		log_info("took over %" PRIu64 " instances from %s, each with a new lease time",
			 info.count, path);
	r->persist = reg_persist_new(r->loop, r->store, path, on_failing, r);
	if (!r->persist)
		return err_set(err, -ENOMEM, "out of memory");
	return reg_persist_flush(r->persist, err);
}

static int server_start(struct registry *r, struct err *err)
{
	const struct http_server_config config = {
		.max_body = r->conf.limits.body_bytes,
		.max_connections = r->conf.max_connections,
		.on_request = reg_api_on_request,
		.arg = &r->api,
	};

	r->server = http_server_new(r->loop, &config);
	if (!r->server)
		return err_set(err, -ENOMEM, "out of memory");
	return http_server_listen(r->server, &r->conf.bind, 0, err);
}

/* Nobody from elsewhere reaches it. */
static bool is_private(const struct net_addr *a)
{
	struct net_prefix v4, v6;

	if (a->sa.sa_family == AF_UNIX)
		return true;
	return (net_parse_prefix(&v4, STR("127.0.0.0/8")) == 0 && net_prefix_has(&v4, a)) ||
	       (net_parse_prefix(&v6, STR("::1")) == 0 && net_prefix_has(&v6, a));
}

static void warn_about_descriptors(const struct registry *r)
{
	size_t limit = daemon_raise_fd_limit();

	if (limit < (size_t)r->conf.max_connections + 64)
		log_warn("max_connections is %" PRIu32
			 " but only %zu descriptors are allowed; raise "
			 "LimitNOFILE",
			 r->conf.max_connections, limit);
}

/* NULL when out of memory. */
static struct reg_writer *writer_start(struct registry *r)
{
	struct reg_shared_config config = {
		.prefix = r->conf.store.prefix,
		.on_state = on_shared,
		.on_news = on_news,
		.arg = r,
	};

	if (r->conf.store.type == REG_CONF_MEMORY) {
		reg_writer_memory_init(&r->memory, r->loop, r->store);
		return &r->memory;
	}
	/* Cannot fail: the configuration was checked. */
	redis_url_parse(&config.url, r->conf.store.url, NULL);
	r->shared = reg_shared_new(r->loop, r->store, &config);
	return r->shared ? reg_shared_writer(r->shared) : NULL;
}

/* Binds first, as root perhaps; the file is only touched as the user who will write it later. */
static int registry_start(struct registry *r, const struct daemon_options *options, struct err *err)
{
	struct reg_writer *writer;
	int rc;

	r->loop = loop_new();
	if (!r->loop)
		return err_set(err, -errno, "cannot make an event loop: %s", strerror(errno));
	warn_about_descriptors(r);
	rc = server_start(r, err);
	if (rc == 0)
		rc = daemon_drop_privileges(options->user, NULL, 0, err);
	if (rc == 0)
		rc = store_start(r, err);
	if (rc == 0 && r->conf.tls) {
		r->tls = reg_tls_new(r->loop, r->server, r->conf.tls, err);
		rc = r->tls ? 0 : -EINVAL;
	}
	if (rc < 0)
		return rc;
	r->watch = reg_watch_new(r->loop, r->store);
	if (!r->watch)
		return err_set(err, -ENOMEM, "out of memory");
	writer = writer_start(r);
	r->eureka = writer ? reg_eureka_new(r->loop, r->store, writer) : NULL;
	if (!r->eureka)
		return err_set(err, -ENOMEM, "out of memory");
	r->checks = reg_checks_new(r->loop, r->store, writer, r->conf.limits.checks_at_once);
	if (!r->checks)
		return err_set(err, -ENOMEM, "out of memory");
	check_all(r);
	r->api.access = reg_access_new(&r->conf);
	r->api.quotas = reg_quotas_new();
	if (!r->api.access || !r->api.quotas)
		return err_set(err, -ENOMEM, "out of memory");
	if (!r->conf.tokens_count && !is_private(&r->conf.bind))
		log_warn("no tokens: whoever reaches the port can register instances, and gateways "
			 "send requests there");
	r->api = (struct reg_api) {
		.access = r->api.access,
		.quotas = r->api.quotas,
		.max_watches = r->conf.limits.watches,
		.loop = r->loop,
		.store = r->store,
		.writer = writer,
		.shared = r->shared,
		.checks = r->checks,
		.watch = r->watch,
		.eureka = r->eureka,
		.persist = r->persist,
		.server = r->server,
		.default_lease_s = r->conf.lease.default_s,
		.has_self_preservation = r->conf.lease.self_preservation,
		.started_ms = clock_wall_ms(),
	};
	r->sweep.on_fire = on_sweep;
	loop_timer_start(r->loop, &r->sweep, r->conf.lease.sweep_ms);
	return 0;
}

/* --- signals --------------------------------------------------------------------------------- */

static void on_stopped(void *arg)
{
	loop_stop(((struct registry *)arg)->loop);
}

static void on_stop_deadline(struct loop_timer *timer)
{
	loop_stop(container_of(timer, struct registry, stop_deadline)->loop);
}

static void on_terminate(int signo, void *arg)
{
	struct registry *r = arg;

	(void)signo;
	if (r->api.is_stopping)
		return;
	log_info("stopping");
	daemon_notify("STOPPING=1");
	r->api.is_stopping = true;
	reg_watch_stop(r->watch);
	r->stop_deadline.on_fire = on_stop_deadline;
	loop_timer_start(r->loop, &r->stop_deadline, STOP_MAX_MS);
	http_server_stop(r->server, on_stopped, r);
}

/* What may fail comes first: then all of it is taken, or nothing. */
static int take_conf(struct registry *r, const struct reg_conf *fresh, struct err *err)
{
	struct reg_access *access = reg_access_new(fresh);
	struct reg_tls *tls = NULL;

	if (!access)
		return err_set(err, -ENOMEM, "out of memory");
	if (fresh->tls) {
		tls = reg_tls_new(r->loop, r->server, fresh->tls, err);
		if (!tls) {
			reg_access_free(&access);
			return -EINVAL;
		}
		reg_tls_free(&r->tls);
		r->tls = tls;
	}
	reg_access_free(&r->api.access);
	r->api.access = access;
	r->api.default_lease_s = fresh->lease.default_s;
	r->api.has_self_preservation = fresh->lease.self_preservation;
	r->api.max_watches = fresh->limits.watches;
	reg_checks_set_at_once(r->checks, fresh->limits.checks_at_once);
	reg_store_set_self_preservation(r->store, fresh->lease.self_preservation);
	reg_store_set_limits(r->store, fresh->limits.instances, fresh->limits.instances_per_client);
	loop_timer_start(r->loop, &r->sweep, fresh->lease.sweep_ms);
	return 0;
}

static void on_reload(int signo, void *arg)
{
	struct registry *r = arg;
	struct arena arena;
	struct reg_conf fresh;
	struct conf_errors errors = { 0 };
	struct err err;

	(void)signo;
	daemon_notify("RELOADING=1");
	arena_init(&arena, 4096, 0);
	if (conf_load(&fresh, &reg_conf_object, r->config_path, &arena, &errors) < 0 ||
	    conf_check_reload(&reg_conf_object, &r->conf, &fresh, &errors) < 0) {
		daemon_log_conf(r->config_path, &errors);
		log_error("%s: not reloaded, nothing changed", r->config_path);
		arena_fini(&arena);
	} else if (take_conf(r, &fresh, &err) < 0) {
		log_error("%s: %s; not reloaded, nothing changed", r->config_path, err.text);
		arena_fini(&arena);
	} else {
		arena_fini(&r->arena);
		r->arena = arena;
		r->conf = fresh;
		log_info("%s: reloaded", r->config_path);
	}
	conf_errors_fini(&errors);
	daemon_notify("READY=1");
}

static int registry_run(struct registry *r)
{
	char text[NET_ADDR_LEN];
	struct net_addr addr;
	struct err err;
	int rc = 0;

	if (loop_signal(r->loop, SIGTERM, on_terminate, r) < 0 ||
	    loop_signal(r->loop, SIGINT, on_terminate, r) < 0 ||
	    loop_signal(r->loop, SIGHUP, on_reload, r) < 0) {
		log_error("cannot set up signals");
		return 1;
	}
	if (http_server_address(r->server, 0, &addr) == 0)
		log_info("listening on %s%s", net_format(text, &addr), r->tls ? " with TLS" : "");
	daemon_watchdog_start(r->loop);
	daemon_notify("READY=1");
	loop_run(r->loop);
	if (r->shared)
		reg_shared_flush(r->shared);
	if (r->persist && reg_persist_flush(r->persist, &err) < 0) {
		log_error("%s; the last changes are lost", err.text);
		rc = 1;
	}
	log_info("stopped");
	return rc;
}

static void registry_free(struct registry *r)
{
	if (r->watch)
		reg_watch_release(r->watch);
	reg_shared_free(&r->shared);
	reg_tls_free(&r->tls);
	if (r->eureka)
		reg_eureka_release(r->eureka);
	http_server_free(&r->server);
	reg_watch_free(&r->watch);
	reg_eureka_free(&r->eureka);
	reg_checks_free(&r->checks);
	reg_persist_free(&r->persist);
	reg_store_free(&r->store);
	reg_quotas_free(&r->api.quotas);
	reg_access_free(&r->api.access);
	loop_free(r->loop);
	arena_fini(&r->arena);
}

static int print_schema(void)
{
	struct buf text;

	buf_init(&text, 0);
	conf_schema_json(&reg_conf_object, "registryd", &text);
	fwrite(buf_data(&text), 1, buf_len(&text), stdout);
	buf_fini(&text);
	return 0;
}

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct registry r = { 0 };
	struct err err = { "" };
	int status = daemon_parse_options(&options, &program, argc, argv);

	if (status >= 0)
		return status;
	if (options.wants_schema)
		return print_schema();
	/* A file over a size limit is a write that fails, as a full disk is; no reason to die. */
	signal(SIGXFSZ, SIG_IGN);
	r.config_path = options.config;
	arena_init(&r.arena, 4096, 0);
	if (conf_read(&options, &r.conf, &r.arena) < 0) {
		status = 1;
	} else if (options.wants_check) {
		printf("%s: ok\n", options.config);
		status = 0;
	} else if (registry_start(&r, &options, &err) < 0) {
		log_error("%s", err.text);
		status = 1;
	} else {
		status = registry_run(&r);
	}
	registry_free(&r);
	return status;
}
