/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/gateway.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "gateway/admin.h"
#include "gateway/handover.h"
#include "gateway/identity/keyring.h"
#include "gateway/identity/revocations.h"
#include "gateway/limits/limit_setup.h"
#include "gateway/limits/limit_store.h"
#include "gateway/listeners.h"
#include "gateway/tls_files.h"
#include "gateway/upgrade.h"
#include "gateway/upstream/pools.h"
#include "lib/clock.h"
#include "lib/daemon.h"
#include "lib/file_watch.h"
#include "lib/log.h"

/* Descriptors that are not client connections: logs, admin, registry, and one to a service for each
 * client. */
#define FDS_RESERVED 256

const char *gateway_state_name(enum gateway_state s)
{
	static const char *const names[] = { "starting", "running", "leaving", "draining",
					     "stopped" };

	return names[s];
}

bool gateway_is_ready(const struct gateway *g)
{
	return g->state == GATEWAY_RUNNING && pools_are_ready(g->pools) &&
	       keyring_is_ready(g->keyring);
}

/* --- start
 * -------------------------------------------------------------------------------------------------------------
 */

static unsigned count_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static int make_workers(struct gateway *g, struct err *err)
{
	const struct gw_conf *conf = &g->snapshot->conf;
	unsigned count = conf->workers ? conf->workers : count_cores();
	size_t fds = daemon_raise_fd_limit();
	size_t most = conf->client.max_connections
			      ? conf->client.max_connections
			      : (fds > 2UL * FDS_RESERVED ? (fds - FDS_RESERVED) / 2 : fds / 4);
	struct listeners listeners = { 0 };
	int rc = listeners_open(&listeners, conf, count, &g->inherited, err);

	if (rc < 0)
		return rc;
	g->workers = calloc(count, sizeof(struct worker *));
	for (unsigned i = 0; g->workers && i < count; i++) {
		rc = worker_new(&g->workers[i], g, i, &listeners,
				(unsigned)MAX(most / count, (size_t)1));
		if (rc < 0)
			break;
		g->worker_count++;
	}
	listeners_fini(&listeners);
	if (!g->workers || rc < 0)
		return err_set(err, -ENOMEM, "cannot make the workers: out of memory");
	return 0;
}

/* The stream as it is configured now. */
static int set_stream(struct gateway *g, struct err *err)
{
	const struct gw_conf *conf = &g->snapshot->conf;
	const struct gw_access_stream *stream = conf->access_log.redis_stream;
	char name[80];
	int rc;

	if (g->stream) {
		record_stream_set(g->stream, stream);
		return 0;
	}
	if (!stream)
		return 0;
	snprintf(name, sizeof(name), "gatehouse-%s", conf->instance.p);
	rc = record_stream_new(&g->stream, stream, g->worker_count, name, err);
	for (unsigned i = 0; i < g->worker_count && rc == 0; i++)
		record_ring_set_stream(record_writer_ring(g->records, i),
				       record_stream_queue(g->stream, i));
	return rc;
}

static int open_records(struct gateway *g, struct err *err)
{
	const struct gw_access_log *log = &g->snapshot->conf.access_log;
	int rc;

	rc = record_writer_new(&g->records, log->path.p, g->worker_count, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < g->worker_count; i++)
		g->workers[i]->records = record_writer_ring(g->records, i);
	return set_stream(g, err);
}

int gateway_start(struct gateway *g, struct snapshot *snapshot, struct err *err)
{
	const struct gw_conf *conf = &snapshot->conf;
	int rc;

	g->snapshot = snapshot_ref(snapshot);
	g->start_ms = clock_wall_ms();
	g->loop = loop_new();
	rc = limit_setup(g, conf, err);
	if (rc < 0)
		return rc;
	g->token_cache = token_cache_new(conf->token_cache_tokens);
	g->revoked = revoked_new();
	g->keyring = g->loop ? keyring_new(g) : NULL;
	if (!g->limits || !g->token_cache || !g->revoked || !g->keyring ||
	    keyring_adopt(g->keyring, snapshot) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	rc = make_workers(g, err);
	if (rc == 0) {
		g->revocations = revocations_new(g, err);
		rc = g->revocations ? 0 : -EINVAL;
	}
	if (rc == 0) {
		g->admin = admin_new(g, err);
		rc = g->admin ? 0 : -EINVAL;
	}
	if (rc == 0) {
		g->pools = pools_new(g, err);
		rc = g->pools ? 0 : -EINVAL;
	}
	return rc;
}

/* --- reload
 * --------------------------------------------------------------------------------------------------------------
 */

static void report(const struct conf_errors *errors, const char *file, struct buf *out)
{
	for (const struct conf_error *e = errors->first; e; e = e->next)
		log_event(e->is_warning ? LOG_WARN : LOG_ERROR, "reload: %s: %s%s%s", file, e->path,
			  e->path[0] ? ": " : "", e->text);
	if (out)
		conf_errors_write(errors, file, out);
}

/* A configuration for every worker, or for none. */
static struct worker_conf **make_confs(struct gateway *g, struct snapshot *snapshot,
				       const struct tls_files *files, struct conf_errors *errors)
{
	struct worker_conf **confs = calloc(g->worker_count + 1, sizeof(struct worker_conf *));
	struct err err;

	if (!confs) {
		conf_errors_add(errors, "", "out of memory");
		return NULL;
	}
	for (unsigned i = 0; i < g->worker_count; i++) {
		confs[i] = worker_conf_new(snapshot, files, &err);
		if (confs[i])
			continue;
		conf_errors_add(errors, "listeners", "%s", err.text);
		while (i--)
			worker_conf_put(confs[i]);
		free(confs);
		return NULL;
	}
	return confs;
}

static struct tls_files *load_tls_files(const struct snapshot *snapshot, struct conf_errors *errors)
{
	struct err err;
	struct tls_files *files = tls_files_new(&snapshot->conf, &err);

	if (!files)
		conf_errors_add(errors, "", "%s", err.text);
	return files;
}

static void reopen_records(struct gateway *g, struct buf *errors)
{
	struct err err;

	if (!g->records ||
	    (record_writer_reopen(g->records, g->snapshot->conf.access_log.path.p, &err) == 0 &&
	     set_stream(g, &err) == 0))
		return;
	log_error("reload: %s", err.text);
	if (errors)
		buf_printf(errors, "%s\n", err.text);
}

/* --- certificates, keys and authorities that change on disk ------------------------------------
 */

#define TLS_CHANGE_DELAY_MS 200   /* certificate and key are replaced one after the other */
#define TLS_POLL_MS         30000 /* for file systems that tell nothing */

static void watch_tls_files(struct gateway *g)
{
	size_t count;
	const char *const *paths = tls_files_paths(g->tls_files, &count);
	int rc = g->tls_watch ? file_watch_set(g->tls_watch, paths, count) : 0;

	if (rc < 0)
		log_warn("tls: cannot watch all files (%s), looking every %d s", strerror(-rc),
			 TLS_POLL_MS / 1000);
}

static void on_tls_file(const char *path, const char *problem, void *arg)
{
	struct gateway *g = arg;

	if (problem) {
		g->tls_reloads_failed++;
		log_error("tls: %s: has changed and cannot be used, going on with what was there "
			  "before: %s",
			  path, problem);
	} else {
		g->tls_reloads++;
		log_info("tls: %s: loaded again", path);
	}
}

static void on_tls_change(void *arg)
{
	struct gateway *g = arg;
	struct conf_errors errors = { 0 };
	struct worker_conf **confs;

	/* First the watch: what changes after it is seen by it. */
	watch_tls_files(g);
	if (!tls_files_refresh(g->tls_files, on_tls_file, g))
		return;
	confs = make_confs(g, g->snapshot, g->tls_files, &errors);
	for (unsigned i = 0; confs && i < g->worker_count; i++)
		worker_post_conf(g->workers[i], confs[i]);
	if (confs)
		pools_update(g->pools); /* health checks by TLS */
	else
		report(&errors, "tls", NULL);
	free(confs);
	conf_errors_fini(&errors);
}

int gateway_reload(struct gateway *g, struct buf *out)
{
	struct conf_errors errors = { 0 };
	struct snapshot *fresh = NULL;
	struct worker_conf **confs = NULL;
	struct tls_files *files = NULL;
	int rc;

	daemon_notify("RELOADING=1");
	rc = snapshot_load(&fresh, g->config_file, &errors);
	if (rc == 0)
		rc = conf_check_reload(&gw_conf_object, &g->snapshot->conf, &fresh->conf, &errors);
	if (rc == 0)
		files = load_tls_files(fresh, &errors);
	if (files && keyring_adopt(g->keyring, fresh) == 0)
		confs = make_confs(g, fresh, files, &errors);
	else if (files)
		conf_errors_add(&errors, "", "out of memory");
	rc = confs ? 0 : -EINVAL;
	if (!confs) {
		report(&errors, g->config_file, out);
		log_error("reload: %zu mistakes, going on with the configuration in use",
			  errors.count);
		g->reloads_failed++;
		snapshot_put(&fresh);
		tls_files_free(&files);
		keyring_settle(g->keyring);
	} else {
		snapshot_put(&g->snapshot);
		g->snapshot = fresh;
		keyring_settle(g->keyring);
		revocations_update(g->revocations);
		tls_files_free(&g->tls_files);
		g->tls_files = files;
		watch_tls_files(g);
		/* Instances first: a new route's first request finds them. */
		pools_update(g->pools);
		for (unsigned i = 0; i < g->worker_count; i++)
			worker_post_conf(g->workers[i], confs[i]);
		reopen_records(g, out);
		report(&errors, g->config_file, NULL);
		g->reloads++;
		log_info("reload: done, %zu routes, %zu services", fresh->route_count,
			 fresh->conf.services_count);
	}
	free(confs);
	conf_errors_fini(&errors);
	daemon_notify("READY=1");
	return rc;
}

/* --- drain
 * ----------------------------------------------------------------------------------------------------------------
 */

static void on_deregistered(void *arg)
{
	struct gateway *g = arg;

	g->state = GATEWAY_STOPPED;
	loop_stop(g->loop);
}

static void on_worker_ended(struct loop_task *task)
{
	struct gateway *g = container_of(task, struct worker, ended)->gateway;

	if (--g->workers_running)
		return;
	if (g->has_let_go) /* the registration is the new process's */
		on_deregistered(g);
	else
		pools_deregister(g->pools, on_deregistered, g);
}

static void drain_workers(struct gateway *g)
{
	uint64_t until_ms = clock_mono_ms() + g->snapshot->conf.drain_timeout_ms;

	for (unsigned i = 0; i < g->worker_count; i++)
		worker_post_drain(g->workers[i], until_ms);
}

static void on_state_timer(struct loop_timer *timer)
{
	struct gateway *g = container_of(timer, struct gateway, state_timer);

	g->state = GATEWAY_DRAINING;
	log_info("draining: no new connections, at most %u ms for those that are open",
		 g->snapshot->conf.drain_timeout_ms);
	drain_workers(g);
}

void gateway_let_go(struct gateway *g)
{
	g->has_let_go = true;
	upgrade_done(g);
	pools_let_go(g->pools);
	admin_let_go(g->admin);
	loop_timer_stop(g->loop, &g->state_timer);
	on_state_timer(&g->state_timer);
}

void gateway_drain(struct gateway *g)
{
	/* Who is about to take over from it must not: this one is to end. */
	handover_free(&g->handover);
	switch (g->state) {
	case GATEWAY_STARTING:
	case GATEWAY_RUNNING:
		g->state = GATEWAY_LEAVING;
		daemon_notify("STOPPING=1");
		log_info("leaving: out of service at the registry, still accepting for %u ms",
			 g->snapshot->conf.drain_delay_ms);
		pools_leave(g->pools);
		loop_timer_start(g->loop, &g->state_timer, g->snapshot->conf.drain_delay_ms);
		break;
	case GATEWAY_LEAVING:
		loop_timer_stop(g->loop, &g->state_timer);
		on_state_timer(&g->state_timer);
		break;
	case GATEWAY_DRAINING:
		log_warn("draining: cut short, open connections are closed");
		drain_workers(g);
		break;
	case GATEWAY_STOPPED:
		break;
	}
}

/* --- running
 * ---------------------------------------------------------------------------------------------------------------
 */

static void on_signal(int signo, void *arg)
{
	struct gateway *g = arg;

	switch (signo) {
	case SIGHUP:
		if (g->state == GATEWAY_RUNNING)
			gateway_reload(g, NULL);
		break;
	case SIGUSR1:
		reopen_records(g, NULL);
		break;
	default:
		gateway_drain(g);
	}
}

static int start_workers(struct gateway *g, struct err *err)
{
	for (unsigned i = 0; i < g->worker_count; i++) {
		struct worker_conf *conf = worker_conf_new(g->snapshot, g->tls_files, err);
		int rc;

		if (!conf)
			return -EINVAL;
		g->workers[i]->ended.run = on_worker_ended;
		rc = worker_start(g->workers[i], conf);
		if (rc < 0)
			return err_set(err, rc, "cannot start worker %u: %s", i, strerror(-rc));
		g->workers_running++;
	}
	return 0;
}

void gateway_go_live(struct gateway *g)
{
	struct err err;

	revocations_go_live(g->revocations);
	for (unsigned i = 0; i < g->worker_count; i++)
		worker_post_accept(g->workers[i]);
	if (admin_accept(g->admin, &err) < 0 || pools_register(g->pools, &err) < 0) {
		gateway_fail(g, err.text);
		return;
	}
	/* What the one before listened on and this one does not. */
	sockets_remove_files(&g->inherited);
	sockets_fini(&g->inherited);
	g->state = GATEWAY_RUNNING;
	daemon_notify("READY=1");
	daemon_watchdog_start(g->loop);
	log_info("instance=%.*s domain=%.*s: running with %u workers",
		 STR_ARG(g->snapshot->conf.instance), STR_ARG(g->snapshot->conf.domain),
		 g->worker_count);
}

void gateway_fail(struct gateway *g, const char *why)
{
	err_set(&g->failure, -ECANCELED, "%s", why);
	g->has_failed = true;
	loop_stop(g->loop);
}

/* Threads that already run when another cannot be started. */
static void stop_workers(struct gateway *g)
{
	for (unsigned i = 0; i < g->workers_running; i++)
		worker_post_drain(g->workers[i], 0);
}

int gateway_run(struct gateway *g, struct err *err)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
	int rc = 0;

	g->state_timer.on_fire = on_state_timer;
	for (size_t i = 0; i < ARRAY_SIZE(signals) && rc == 0; i++)
		rc = loop_signal(g->loop, signals[i], on_signal, g);
	if (rc < 0)
		return err_set(err, rc, "cannot take signals: %s", strerror(-rc));
	rc = open_records(g, err);
	if (rc == 0) {
		g->tls_files = tls_files_new(&g->snapshot->conf, err);
		rc = g->tls_files ? 0 : -EINVAL;
	}
	if (rc == 0 && g->limit_store) {
		rc = limit_store_start(g->limit_store);
		if (rc < 0)
			err_set(err, rc, "cannot start a thread: %s", strerror(-rc));
	}
	if (rc == 0)
		rc = start_workers(g, err);
	if (rc < 0) {
		stop_workers(g);
		return rc;
	}
	g->tls_watch = file_watch_new(g->loop, TLS_CHANGE_DELAY_MS, TLS_POLL_MS, on_tls_change, g);
	watch_tls_files(g);
	keyring_settle(g->keyring);
	pools_update(g->pools);
	if (g->handover)
		handover_finish(g);
	else
		gateway_go_live(g);
	loop_run(g->loop);
	if (g->has_failed) {
		*err = g->failure;
		stop_workers(g);
		return -ECANCELED;
	}
	log_info("stopped");
	return 0;
}

void gateway_fini(struct gateway *g)
{
	handover_free(&g->handover);
	upgrade_free(&g->upgrade);
	for (unsigned i = 0; i < g->worker_count; i++)
		worker_join(g->workers[i]);
	for (unsigned i = 0; i < g->worker_count; i++)
		worker_free(g->workers[i]);
	free(g->workers);
	record_stream_free(&g->stream);
	record_writer_free(&g->records);
	admin_free(&g->admin);
	pools_free(&g->pools);
	keyring_free(&g->keyring);
	revocations_free(&g->revocations);
	token_cache_free(&g->token_cache);
	revoked_free(&g->revoked);
	limit_store_free(&g->limit_store);
	limits_table_free(&g->limits);
	sockets_fini(&g->inherited);
	file_watch_free(&g->tls_watch);
	tls_files_free(&g->tls_files);
	snapshot_put(&g->snapshot);
	loop_free(g->loop);
}
