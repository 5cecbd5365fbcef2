/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "gateway/analytics/analytics.h"
#include "gateway/analytics/versions.h"
#include "gateway/gateway.h"
#include "gateway/http/conn.h"
#include "gateway/listeners.h"
#include "gateway/snapshot.h"
#include "gateway/tls_setup.h"
#include "gateway/upstream/service.h"
#include "gateway/upstream/tunnel.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"

#define ACCEPTS_PER_ROUND 64
#define ACCEPT_PAUSE_MS   100
#define CHUNKS_KEPT       256

/* --- configurations
 * ---------------------------------------------------------------------------------------------------
 */

struct worker_conf *worker_conf_new(struct snapshot *snapshot, const struct tls_files *files,
				    struct err *err)
{
	const struct gw_conf *conf = &snapshot->conf;
	struct worker_conf *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	c->refs = 1;
	c->snapshot = snapshot_ref(snapshot);
	c->tls = calloc(conf->listeners_count + 1, sizeof(struct tls_server *));
	c->clients = calloc(conf->services_count + 1, sizeof(struct tls_client *));
	c->services = calloc(conf->services_count + 1, sizeof(struct service *));
	c->routes = calloc(snapshot->route_count + 1, sizeof(struct route_stats *));
	c->splits = calloc(snapshot->split_count + 1, sizeof(struct split_stats *));
	c->auths = calloc(snapshot->auth_count + 1, sizeof(struct worker_auth));
	if (!c->tls || !c->clients || !c->services || !c->routes || !c->splits || !c->auths) {
		err_set(err, -ENOMEM, "out of memory");
		worker_conf_put(c);
		return NULL;
	}
	for (size_t i = 0; i < conf->listeners_count; i++) {
		if (!conf->listeners[i].tls)
			continue;
		c->tls[i] = tls_setup_listener(conf->listeners[i].tls, files, err);
		if (!c->tls[i]) {
			worker_conf_put(c);
			return NULL;
		}
	}
	for (size_t i = 0; i < conf->services_count; i++) {
		if (!conf->services[i].tls)
			continue;
		c->clients[i] = tls_setup_service(&conf->services[i], files, true, err);
		if (!c->clients[i]) {
			worker_conf_put(c);
			return NULL;
		}
	}
	return c;
}

struct worker_conf *worker_conf_get(struct worker_conf *c)
{
	c->refs++;
	return c;
}

void worker_conf_put(struct worker_conf *c)
{
	if (--c->refs)
		return;
	for (size_t i = 0; c->tls && i < c->snapshot->conf.listeners_count; i++)
		tls_server_free(c->tls[i]);
	for (size_t i = 0; c->clients && i < c->snapshot->conf.services_count; i++)
		tls_client_free(&c->clients[i]);
	for (size_t i = 0; c->services && i < c->snapshot->conf.services_count; i++) {
		if (c->services[i])
			service_put(c->services[i]);
	}
	for (size_t i = 0; c->auths && i < c->snapshot->auth_count; i++) {
		jwt_verifier_free(&c->auths[i].verifier);
		auth_view_fini(&c->auths[i].view);
	}
	free(c->tls);
	free(c->clients);
	free(c->services);
	free(c->routes);
	free(c->splits);
	free(c->auths);
	snapshot_put(&c->snapshot);
	free(c);
}

struct worker_auth *worker_conf_auth(struct worker_conf *c, const struct snapshot_auth *auth)
{
	struct worker_auth *own = &c->auths[auth->index];

	if (auth->keys ? auth_view_update(&own->view, auth->keys) : !own->fingerprint)
		own->fingerprint = snapshot_auth_fingerprint(auth, &own->view);
	return own;
}

static struct service *find_service(struct worker *w, struct str name)
{
	for (struct hmap_node *n = hmap_first(&w->services, hash_str(name)); n; n = hmap_next(n)) {
		struct service *s = container_of(n, struct service, node);

		if (str_eq(s->name, name))
			return s;
	}
	return NULL;
}

static struct service *get_service(struct worker *w, struct str name)
{
	struct service *s = find_service(w, name);

	if (s)
		return service_get(s);
	s = service_new(w, name);
	if (!s || hmap_insert(&w->services, &s->node, hash_str(name)) < 0)
		abort(); /* a worker without its services is no worker; only at start or reload */
	return service_get(s);
}

/* Counters survive reloads and are never freed before the worker: names come from the file, not
 * from clients. */
static struct route_stats *get_stats(struct worker *w, struct str name)
{
	struct route_stats *stats;

	for (struct hmap_node *n = hmap_first(&w->stats, hash_str(name)); n; n = hmap_next(n)) {
		stats = container_of(n, struct route_stats, node);
		if (str_eq(stats->name, name))
			return stats;
	}
	stats = calloc(1, sizeof(*stats) + name.len);
	if (!stats)
		abort();
	memcpy(stats + 1, name.p, name.len);
	stats->name = str_of((char *)(stats + 1), name.len);
	list_init(&stats->splits);
	pthread_mutex_lock(&w->stats_lock);
	if (hmap_insert(&w->stats, &stats->node, hash_str(name)) < 0)
		abort();
	pthread_mutex_unlock(&w->stats_lock);
	return stats;
}

static struct split_stats *get_split(struct worker *w, struct route_stats *route,
				     struct str service)
{
	struct split_stats *stats;

	list_for_each (node, &route->splits) {
		stats = container_of(node, struct split_stats, node);
		if (str_eq(stats->service, service))
			return stats;
	}
	stats = calloc(1, sizeof(*stats) + service.len);
	if (!stats)
		abort();
	memcpy(stats + 1, service.p, service.len);
	stats->service = str_of((char *)(stats + 1), service.len);
	pthread_mutex_lock(&w->stats_lock);
	list_add_tail(&route->splits, &stats->node);
	pthread_mutex_unlock(&w->stats_lock);
	return stats;
}

static void free_stats(struct route_stats *stats)
{
	while (!list_empty(&stats->splits)) {
		struct list *node = stats->splits.next;

		list_remove(node);
		free(container_of(node, struct split_stats, node));
	}
	free(stats);
}

static void adopt_routes(struct worker *w, struct worker_conf *c)
{
	const struct snapshot *s = c->snapshot;

	for (size_t i = 0; i < s->route_count; i++) {
		const struct gw_route *route = s->routes[i].conf;

		c->routes[i] = get_stats(w, route->name);
		for (size_t j = 0; j < route->split_count; j++)
			c->splits[s->routes[i].split_at + j] = get_split(w, c->routes[i],
									 route->split[j].service);
	}
	c->routes[s->route_count] = get_stats(w, STR(""));
}

/* Services that no configuration in use names any more: only the map's own reference is left. */
static void forget_services(struct worker *w)
{
	hmap_for_each (n, &w->services) {
		struct service *s = container_of(n, struct service, node);

		if (s->refs == 1) {
			hmap_remove(&w->services, n);
			service_put(s);
		}
	}
}

static void worker_adopt(struct worker *w, struct worker_conf *c)
{
	struct worker_conf *old = w->conf;
	struct snapshot *snapshot = c->snapshot;

	for (size_t i = 0; i < snapshot->conf.services_count; i++) {
		c->services[i] = get_service(w, snapshot->conf.services[i].name);
		service_configure(c->services[i], &snapshot->conf.services[i], c->clients[i]);
	}
	adopt_routes(w, c);
	w->conf = c;
	if (old)
		worker_conf_put(old);
	forget_services(w);
}

/* --- orders of the main thread
 * ------------------------------------------------------------------------------------------- */

struct conf_order {
	struct loop_task task;
	struct worker *worker;
	struct worker_conf *conf;
};

static void run_conf_order(struct loop_task *task)
{
	struct conf_order *order = container_of(task, struct conf_order, task);

	worker_adopt(order->worker, order->conf);
	free(order);
}

void worker_post_conf(struct worker *w, struct worker_conf *conf)
{
	struct conf_order *order = calloc(1, sizeof(*order));

	if (!order)
		abort();
	order->task.run = run_conf_order;
	order->worker = w;
	order->conf = conf;
	loop_post(w->loop, &order->task);
}

struct members_order {
	struct loop_task task;
	struct worker *worker;
	struct str service;
	struct circuit *circuit; /* held, as those of the members */
	size_t count;
	struct service_member members[];
};

static void run_members_order(struct loop_task *task)
{
	struct members_order *order = container_of(task, struct members_order, task);
	struct service *s = get_service(order->worker, order->service);

	/* One that no configuration names yet is that of the configuration posted next. */
	service_use_circuit(s, order->circuit);
	service_set_members(s, order->members, order->count);
	service_put(s);
	circuit_put(&order->circuit);
	for (size_t i = 0; i < order->count; i++)
		circuit_put(&order->members[i].circuit);
	free(order);
}

void worker_post_members(struct worker *w, struct str service, struct circuit *circuit,
			 const struct service_member *members, size_t count)
{
	size_t size = sizeof(struct members_order) + count * sizeof(*members);
	struct members_order *order = calloc(1, size + service.len);

	if (!order)
		abort();
	order->task.run = run_members_order;
	order->worker = w;
	order->count = count;
	order->circuit = circuit_get(circuit);
	if (count)
		memcpy(order->members, members, count * sizeof(*members));
	for (size_t i = 0; i < count; i++)
		circuit_get(order->members[i].circuit);
	memcpy((char *)order + size, service.p, service.len);
	order->service = str_of((char *)order + size, service.len);
	loop_post(w->loop, &order->task);
}

/* --- accepting
 * --------------------------------------------------------------------------------------------------------------
 */

static void listeners_remove(struct worker *w)
{
	for (unsigned i = 0; i < w->listener_count; i++)
		loop_io_remove(w->loop, &w->listeners[i].io);
}

static int listeners_add(struct worker *w)
{
	for (unsigned i = 0; i < w->listener_count; i++) {
		/* Exclusive: where workers share a socket, not all of them wake for each
		 * connection.
		 */
		int rc = loop_io_add(w->loop, &w->listeners[i].io, EPOLLIN | EPOLLEXCLUSIVE);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static void run_accept_order(struct loop_task *task)
{
	struct worker *w = container_of(task, struct worker, accept_order);
	int rc = w->is_draining ? 0 : listeners_add(w);

	if (rc < 0)
		log_error("worker %u cannot accept connections: %s", w->index, strerror(-rc));
}

void worker_post_accept(struct worker *w)
{
	loop_post(w->loop, &w->accept_order);
}

/* Out of descriptors or over the bound: existing connections go on, new ones wait in the kernel's
 * queue for a while. */
static void accept_pause(struct worker *w)
{
	metrics_inc(&w->counters.accept_pauses, 1);
	listeners_remove(w);
	loop_timer_start(w->loop, &w->accept_pause, ACCEPT_PAUSE_MS);
}

static void accept_resume(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, accept_pause);

	if (!w->is_draining)
		listeners_add(w);
}

static void accept_some(struct worker *w, struct worker_listener *l, int most)
{
	struct net_addr peer;

	for (int i = 0; i < most; i++) {
		int fd;

		if (w->conn_count >= w->conn_max) {
			accept_pause(w);
			return;
		}
		fd = net_accept(l->io.fd, &peer);
		if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
			accept_pause(w);
			return;
		}
		if (fd == -EAGAIN)
			return;
		if (fd >= 0)
			conn_accept(w, l->index, fd, &peer);
	}
}

static void on_acceptable(struct loop_io *io, uint32_t events)
{
	struct worker_listener *l = container_of(io, struct worker_listener, io);

	(void)events;
	accept_some(l->worker, l, ACCEPTS_PER_ROUND);
}

/* --- draining
 * ----------------------------------------------------------------------------------------------------------------
 */

void worker_on_idle(struct worker *w)
{
	if (!w->is_draining || w->conn_count || w->is_stopped)
		return;
	w->is_stopped = true;
	loop_stop(w->loop);
}

static void on_drain_timeout(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, drain_timer);

	while (!list_empty(&w->conns))
		conn_close(container_of(w->conns.next, struct conn, node));
	worker_on_idle(w);
}

static void on_goodbye(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, goodbye_timer);

	w->says_goodbye = true;
	tunnels_say_goodbye(w);
}

static void run_drain_order(struct loop_task *task)
{
	struct worker *w = container_of(task, struct worker, drain_order);
	uint64_t now = loop_now_ms(w->loop), left;

	if (w->is_draining) {
		on_drain_timeout(&w->drain_timer);
		return;
	}
	/* Connections that the kernel completed already would get a reset from close(). */
	for (unsigned i = 0; i < w->listener_count; i++)
		accept_some(w, &w->listeners[i], 4096);
	loop_timer_stop(w->loop, &w->accept_pause);
	listeners_remove(w);
	for (unsigned i = 0; i < w->listener_count; i++)
		close(w->listeners[i].io.fd);
	w->listener_count = 0;
	w->is_draining = true;
	list_for_each (node, &w->conns)
		conn_kick(container_of(node, struct conn, node));
	left = w->drain_until_ms > now ? w->drain_until_ms - now : 0;
	loop_timer_start(w->loop, &w->drain_timer, left);
	/* Time enough for the answers to a goodbye, and for what is nearly done. */
	loop_timer_start(w->loop, &w->goodbye_timer, left - left / 4);
	worker_on_idle(w);
}

void worker_post_drain(struct worker *w, uint64_t until_ms)
{
	/* A second order cuts what is left, whatever the time says, so only the first one sets it.
	 */
	if (!w->drain_until_ms)
		w->drain_until_ms = until_ms ? until_ms : 1;
	loop_post(w->loop, &w->drain_order);
}

/* --- life
 * ----------------------------------------------------------------------------------------------------------------------
 */

struct str worker_http_date(struct worker *w)
{
	uint64_t now_ms = loop_now_ms(w->loop);

	/* The wall clock is read once a second, not once a response. */
	if (now_ms >= w->http_date_until_ms) {
		uint64_t wall_ms = clock_wall_ms();

		clock_http_date(w->http_date, wall_ms);
		w->http_date_until_ms = now_ms + MSEC_PER_SEC - wall_ms % MSEC_PER_SEC;
	}
	return str_of(w->http_date, CLOCK_HTTP_DATE_LEN);
}

void *worker_chunk_take(struct worker *w)
{
	return w->chunk_count ? w->chunks[--w->chunk_count] : malloc(WORKER_CHUNK);
}

void worker_chunk_give(struct worker *w, void *chunk)
{
	if (w->chunk_count < CHUNKS_KEPT)
		w->chunks[w->chunk_count++] = chunk;
	else
		free(chunk);
}

int worker_new(struct worker **out, struct gateway *g, unsigned index,
	       const struct listeners *listeners, unsigned conn_max)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->gateway = g;
	w->index = index;
	w->conn_max = conn_max;
	w->loop = loop_new();
	w->listeners = calloc(listeners->count, sizeof(*w->listeners));
	w->chunks = calloc(CHUNKS_KEPT, sizeof(void *));
	list_init(&w->conns);
	list_init(&w->tunnels);
	list_init(&w->idle_requests);
	list_init(&w->mirrors);
	pthread_mutex_init(&w->stats_lock, NULL);
	w->accept_pause.on_fire = accept_resume;
	w->drain_timer.on_fire = on_drain_timeout;
	w->goodbye_timer.on_fire = on_goodbye;
	w->drain_order.run = run_drain_order;
	w->accept_order.run = run_accept_order;
	w->overload.io.fd = -1;
	w->analytics = w->loop ? analytics_new(w->loop) : NULL;
	w->versions = versions_new();
	if (!w->analytics || !w->versions || !w->listeners || !w->chunks ||
	    overload_init(&w->overload, w->loop) < 0) {
		worker_free(w);
		return -ENOMEM;
	}
	for (size_t i = 0; i < listeners->count; i++) {
		const struct listener_socket *from = &listeners->sockets[i];

		if (from->worker != index)
			continue;
		/* Connections inherit it. */
		net_set_nodelay(from->fd);
		w->listeners[w->listener_count++] = (struct worker_listener) {
			.io = { .fd = from->fd, .on_event = on_acceptable },
			.worker = w,
			.index = from->listener,
		};
	}
	*out = w;
	return 0;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", w->index % 1000);
	pthread_setname_np(pthread_self(), name);
	loop_run(w->loop);
	loop_post(w->gateway->loop, &w->ended);
	return NULL;
}

int worker_start(struct worker *w, struct worker_conf *conf)
{
	int rc;

	worker_adopt(w, conf);
	rc = -pthread_create(&w->thread, NULL, worker_run, w);
	w->has_thread = rc == 0;
	return rc;
}

void worker_join(struct worker *w)
{
	if (w->has_thread)
		pthread_join(w->thread, NULL);
	w->has_thread = false;
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	worker_join(w);
	if (w->loop) {
		while (!list_empty(&w->conns))
			conn_close(container_of(w->conns.next, struct conn, node));
		mirror_end_all(w);
		hmap_for_each (n, &w->services) {
			struct service *s = container_of(n, struct service, node);

			service_set_members(s, NULL, 0);
		}
		/* What was closed is freed at the end of a round. */
		loop_step(w->loop, 0);
		loop_step(w->loop, 0);
	}
	overload_fini(&w->overload);
	for (unsigned i = 0; i < w->listener_count; i++)
		close(w->listeners[i].io.fd);
	if (w->conf)
		worker_conf_put(w->conf);
	forget_services(w);
	hmap_for_each (n, &w->stats)
		free_stats(container_of(n, struct route_stats, node));
	hmap_fini(&w->services);
	hmap_fini(&w->stats);
	request_free_idle(w);
	analytics_free(w->analytics);
	versions_free(w->versions);
	while (w->chunk_count)
		free(w->chunks[--w->chunk_count]);
	free(w->chunks);
	free(w->listeners);
	loop_free(w->loop);
	pthread_mutex_destroy(&w->stats_lock);
	free(w);
}
