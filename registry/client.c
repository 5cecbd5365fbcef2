/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "registry/client_private.h"

#define EVENT_MAX      (64UL << 20) /* a full state */
#define SILENCE_MS     25000        /* the registry writes a comment each 10 s */
#define POLL_WAIT_S    30
#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 5000

static void client_connect(struct reg_client *c);

void reg_client_tell(struct reg_client *c, enum reg_client_event event, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	if (!c->on_event)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->on_event(event, text, c->arg);
}

void reg_client_changed(struct reg_client *c)
{
	loop_defer(c->loop, &c->publish);
}

static void client_on_publish(struct loop_task *task)
{
	struct reg_client *c = container_of(task, struct reg_client, publish);

	list_for_each_safe (node, &c->watched) {
		struct reg_watched *w = container_of(node, struct reg_watched, node);

		if (w->is_dirty && !w->is_from_cache)
			reg_client_cache_touch(c);
		reg_watched_publish(w);
	}
}

static struct reg_watched *watched_find(const struct reg_client *c, const char *app)
{
	list_for_each (node, &c->watched) {
		struct reg_watched *w = container_of(node, struct reg_watched, node);

		if (strcmp(w->app, app) == 0)
			return w;
	}
	return NULL;
}

/* --- failing and coming back ----------------------------------------------------------------- */

uint64_t reg_client_jitter(uint64_t delay_ms)
{
	return delay_ms / 2 + random_fast() % (delay_ms / 2 + 1);
}

static void client_disconnect(struct reg_client *c)
{
	http_call_cancel(&c->stream);
	list_for_each (node, &c->watched) {
		struct reg_watched *w = container_of(node, struct reg_watched, node);

		http_call_cancel(&w->call);
		w->has_answer = false;
	}
	sse_fini(&c->sse);
	sse_init(&c->sse, EVENT_MAX);
	c->is_connected = false;
}

/* The next URL, after a pause that grows once all of them have failed. */
static void client_fail(struct reg_client *c, const char *why)
{
	bool was_connected = c->is_connected;
	uint64_t delay_ms = BACKOFF_MIN_MS / 4;

	if (was_connected)
		c->reconnects++;
	if (!c->is_reported_lost) {
		c->is_reported_lost = true;
		reg_client_tell(c, REG_CLIENT_LOST, "%s: %s", c->urls[c->url].text, why);
	}
	client_disconnect(c);
	c->failures++;
	if (c->url_count > 1) {
		c->url = (c->url + 1) % c->url_count;
		c->index = 0; /* another registry counts differently */
		c->mode = REG_CLIENT_STREAM;
	}
	if (c->failures >= c->url_count) {
		delay_ms = MAX(c->backoff_ms * 2, (uint64_t)BACKOFF_MIN_MS);
		c->backoff_ms = delay_ms = MIN(delay_ms, (uint64_t)BACKOFF_MAX_MS);
	}
	loop_timer_start(c->loop, &c->retry, reg_client_jitter(delay_ms));
}

static void client_on_retry(struct loop_timer *timer)
{
	client_connect(container_of(timer, struct reg_client, retry));
}

/* The first sign that this registry serves us. */
static void client_connected(struct reg_client *c)
{
	c->backoff_ms = 0;
	c->failures = 0;
	if (c->is_connected)
		return;
	c->is_connected = true;
	c->is_reported_lost = false;
	reg_client_tell(c, REG_CLIENT_CONNECTED, "%s", c->urls[c->url].text);
}

/* --- event stream ---------------------------------------------------------------------------- */

static const json_t *find_app(const json_t *apps, const char *name)
{
	for (size_t i = 0; i < json_array_size(apps); i++) {
		const json_t *app = json_array_get(apps, i);
		const char *text = json_string_value(json_object_get(app, "app"));

		if (text && strcmp(text, name) == 0)
			return json_object_get(app, "instances");
	}
	return NULL;
}

/* The full state. Apps that are not in it have no instance; see reg_client_watch. */
static void client_on_reset(struct reg_client *c, const json_t *json, uint64_t index)
{
	const json_t *apps = json_object_get(json, "apps");

	list_for_each (node, &c->watched) {
		struct reg_watched *w = container_of(node, struct reg_watched, node);

		reg_watched_reset(w, find_app(apps, w->app), index, false);
	}
}

static void client_on_change(struct reg_client *c, struct str event, const json_t *json,
			     uint64_t index)
{
	const char *app = json_string_value(json_object_get(json, "app"));
	const json_t *id = json_object_get(json, "id");
	struct reg_watched *w = app ? watched_find(c, app) : NULL;

	if (!w)
		return;
	if (str_eq(event, STR("delete")))
		reg_watched_delete(w, str_of(json_string_value(id), json_string_length(id)), index);
	else
		reg_watched_put(w, json, index);
}

static bool client_on_event(struct str event, struct str id, struct str data, void *arg)
{
	struct reg_client *c = arg;
	uint64_t index;
	json_t *json = json_loadb(data.p, data.len, 0, NULL);

	c->events++;
	if (json && str_u64(id, &index)) {
		if (str_eq(event, STR("reset")))
			client_on_reset(c, json, index);
		else
			client_on_change(c, event, json, index);
		c->index = index;
	}
	json_decref(json);
	return true;
}

static bool is_event_stream(const struct http1_head *head)
{
	const struct http_field *type = http_find(head->fields, head->field_count,
						  HTTP_CONTENT_TYPE);

	return head->status == 200 && type && str_istarts(type->value, STR("text/event-stream"));
}

static void client_poll(struct reg_client *c);

static void stream_on_head(struct http_call *call, const struct http1_head *head, void *arg)
{
	struct reg_client *c = arg;

	(void)call;
	if (head->status == 401 || head->status == 403) {
		client_fail(c, head->status == 401
				       ? "status 401: needs a token that it knows"
				       : "status 403: our token may not read these apps");
		return;
	}
	/* No event stream to be had here, perhaps because of something between. */
	if (head->status != 503 && !is_event_stream(head)) {
		http_call_cancel(&c->stream);
		client_poll(c);
	}
}

static void stream_on_data(struct http_call *call, struct str data, void *arg)
{
	struct reg_client *c = arg;

	(void)call;
	c->has_heard = true;
	client_connected(c);
	if (sse_feed(&c->sse, data, client_on_event, c) < 0)
		client_fail(c, "an event is too large");
}

static void stream_on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct reg_client *c = arg;
	char text[64];

	(void)call;
	c->stream = NULL;
	/* A head and then silence: something between us and the registry holds the events back. */
	if (result->error == -ETIMEDOUT && result->status == 200 && !c->has_heard) {
		client_poll(c);
		return;
	}
	snprintf(text, sizeof(text), "status %u", result->status);
	if (result->error)
		client_fail(c, result->problem);
	else
		client_fail(c, result->status == 200 ? "the event stream ended" : text);
}

static void client_stream(struct reg_client *c)
{
	struct http_request_spec spec = reg_client_request(c, c->url);
	struct buf query;

	buf_init(&query, 0);
	buf_addz(&query, "/v1/watch?index=");
	buf_u64(&query, c->index);
	buf_addz(&query, "&apps=");
	list_for_each (node, &c->watched) {
		buf_addz(&query, container_of(node, struct reg_watched, node)->app);
		if (node->next != &c->watched)
			buf_putc(&query, ',');
	}
	c->has_heard = false;
	spec.target[1] = buf_str(&query);
	spec.closes = true;
	spec.idle_timeout_ms = SILENCE_MS;
	spec.on_head = stream_on_head;
	spec.on_data = stream_on_data;
	spec.on_done = stream_on_done;
	spec.arg = c;
	c->stream = http_call_start(c->http, &spec);
	buf_fini(&query);
	if (!c->stream)
		client_fail(c, "out of memory");
}

/* --- blocking queries ------------------------------------------------------------------------ */

static void watched_poll(struct reg_watched *w);

static void poll_on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct reg_watched *w = arg;
	struct reg_client *c = w->client;
	char text[64];
	json_t *json;

	(void)call;
	w->call = NULL;
	snprintf(text, sizeof(text), "status %u", result->status);
	if (result->error || result->status != 200) {
		client_fail(c, result->error ? result->problem : text);
		return;
	}
	json = json_loadb(result->body.p, result->body.len, 0, NULL);
	if (!json_is_array(json_object_get(json, "instances"))) {
		json_decref(json);
		client_fail(c, "the answer is no list of instances");
		return;
	}
	client_connected(c);
	c->events++;
	reg_watched_reset(w, json_object_get(json, "instances"),
			  (uint64_t)json_integer_value(json_object_get(json, "index")),
			  w->has_answer);
	w->is_polled = true;
	json_decref(json);
	watched_poll(w);
}

static void watched_poll(struct reg_watched *w)
{
	struct reg_client *c = w->client;
	struct http_request_spec spec = reg_client_request(c, c->url);
	char query[REG_APP_MAX + 96];

	snprintf(query, sizeof(query), "/v1/apps/%s?wait_s=%d&index=%llu", w->app,
		 w->is_polled ? POLL_WAIT_S : 0, w->is_polled ? (unsigned long long)w->index : 0);
	spec.target[1] = str_from(query);
	spec.max_body = EVENT_MAX;
	spec.response_timeout_ms = POLL_WAIT_S * 1000 + 10000;
	spec.on_done = poll_on_done;
	spec.arg = w;
	w->call = http_call_start(c->http, &spec);
	if (!w->call)
		client_fail(c, "out of memory");
}

static void client_poll(struct reg_client *c)
{
	c->mode = REG_CLIENT_POLL;
	list_for_each (node, &c->watched) {
		struct reg_watched *w = container_of(node, struct reg_watched, node);

		w->is_polled = false;
		watched_poll(w);
		if (!w->call)
			return;
	}
}

static void client_connect(struct reg_client *c)
{
	loop_timer_stop(c->loop, &c->retry);
	if (list_empty(&c->watched))
		return;
	/* After an outage the stream is worth another try. */
	c->mode = REG_CLIENT_STREAM;
	client_stream(c);
}

/* --- the client ------------------------------------------------------------------------------ */

static void client_on_restart(struct loop_task *task)
{
	struct reg_client *c = container_of(task, struct reg_client, restart);

	client_disconnect(c);
	c->index = 0; /* of the apps that are new the full state is needed */
	client_connect(c);
}

int reg_client_watch(struct reg_client *c, struct str app,
		     void (*on_list)(struct reg_list *list, void *arg), void *arg)
{
	char name[REG_APP_MAX + 1];
	struct reg_watched *w;

	if (!reg_app_name(app, name))
		return -EINVAL;
	w = watched_find(c, name);
	if (w) {
		w->on_list = on_list;
		w->arg = arg;
		reg_list_unref(&w->list);
		w->is_dirty = w->item_count > 0;
		reg_client_changed(c);
		return 0;
	}
	w = reg_watched_new(c, name);
	if (!w)
		return -ENOMEM;
	w->on_list = on_list;
	w->arg = arg;
	reg_watched_from_cache(w, reg_client_cached(c, name));
	loop_defer(c->loop, &c->restart);
	return 0;
}

void reg_client_unwatch(struct reg_client *c, struct str app)
{
	char name[REG_APP_MAX + 1];
	struct reg_watched *w = reg_app_name(app, name) ? watched_find(c, name) : NULL;

	if (!w)
		return;
	reg_watched_free(w);
	loop_defer(c->loop, &c->restart);
}

bool reg_client_is_ready(const struct reg_client *c)
{
	list_for_each (node, &c->watched) {
		if (!container_of(node, struct reg_watched, node)->list)
			return false;
	}
	return true;
}

void reg_client_get_status(const struct reg_client *c, struct reg_client_status *out)
{
	*out = (struct reg_client_status) {
		.is_connected = c->is_connected,
		.url = c->urls[c->url].text,
		.index = c->index,
		.events = c->events,
		.reconnects = c->reconnects,
	};
}

static int client_parse_urls(struct reg_client *c, const struct reg_client_config *config,
			     struct err *err)
{
	if (config->url_count == 0)
		return err_set(err, -EINVAL, "needs the URL of a registry");
	c->urls = calloc(config->url_count, sizeof(*c->urls));
	if (!c->urls)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < config->url_count; i++) {
		struct reg_client_url *url = &c->urls[c->url_count++];
		int r;

		url->text = strndup(config->urls[i].p, config->urls[i].len);
		if (!url->text)
			return err_set(err, -ENOMEM, "out of memory");
		r = http_base_parse(&url->base, config->urls[i],
				    HTTP_BASE_TLS | (config->may_resolve ? HTTP_BASE_RESOLVE : 0U),
				    err);
		if (r < 0)
			return r;
	}
	c->url = random_u64() % c->url_count;
	return 0;
}

struct reg_client *reg_client_new(struct loop *loop, const struct reg_client_config *config,
				  struct err *err)
{
	struct reg_client *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	c->loop = loop;
	c->on_event = config->on_event;
	c->arg = config->arg;
	list_init(&c->watched);
	list_init(&c->selfs);
	list_init(&c->publish.node);
	list_init(&c->restart.node);
	c->publish.run = client_on_publish;
	c->restart.run = client_on_restart;
	c->retry.on_fire = client_on_retry;
	sse_init(&c->sse, EVENT_MAX);
	c->http = http_client_new(loop, 4);
	if (config->cache)
		c->cache_path = strdup(config->cache);
	if (client_parse_urls(c, config, err) < 0 ||
	    reg_client_set_access(c, &config->access, err) < 0) {
		reg_client_free(&c);
		return NULL;
	}
	if (!c->http || (config->cache && !c->cache_path)) {
		err_set(err, -ENOMEM, "out of memory");
		reg_client_free(&c);
		return NULL;
	}
	reg_client_cache_load(c);
	return c;
}

void reg_client_free(struct reg_client **cp)
{
	struct reg_client *c = TAKE_PTR(*cp);

	if (!c)
		return;
	http_call_cancel(&c->stream);
	reg_client_free_selfs(c);
	reg_client_cache_fini(c);
	list_for_each_safe (node, &c->watched)
		reg_watched_free(container_of(node, struct reg_watched, node));
	loop_timer_stop(c->loop, &c->retry);
	loop_cancel(&c->publish);
	loop_cancel(&c->restart);
	http_client_free(&c->http);
	sse_fini(&c->sse);
	for (size_t i = 0; i < c->url_count; i++)
		free(c->urls[i].text);
	free(c->urls);
	reg_client_access_fini(c);
	free(c);
}
