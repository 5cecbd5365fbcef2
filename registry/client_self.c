/* SPDX-License-Identifier: Apache-2.0 */
/* Being an instance oneself: register, renew, say how one is, leave. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "registry/client_private.h"

#define BEATS_PER_LEASE 3
#define RETRY_MIN_MS    200
#define RETRY_MAX_MS    5000
#define CALL_MS         2000

struct reg_self {
	struct list node; /* in client->selfs */
	struct reg_client *client;
	struct arena arena;
	char app[REG_APP_MAX + 1];
	struct reg_instance instance;
	char *path; /* "/v1/apps/…/instances/…" */
	size_t url;
	struct http_call *call;
	struct loop_timer timer;
	uint64_t backoff_ms;
	bool is_registered;
	bool is_refused; /* and that was reported */
	void (*on_done)(void *arg);
	void *arg;
	struct loop_task done;
};

static void self_register(struct reg_self *self);

static void self_free(struct reg_self *self)
{
	http_call_cancel(&self->call);
	loop_timer_stop(self->client->loop, &self->timer);
	loop_cancel(&self->done);
	list_remove(&self->node);
	arena_fini(&self->arena);
	free(self);
}

static void
self_call(struct reg_self *self, enum http_method method, const char *suffix, struct str body,
	  void (*on_done)(struct http_call *call, const struct http_result *result, void *arg))
{
	struct http_request_spec spec = reg_client_request(self->client, self->url);

	http_call_cancel(&self->call);
	spec.target[1] = str_from(self->path);
	spec.target[2] = str_from(suffix);
	spec.method = method;
	spec.body = body;
	spec.is_repeatable = true; /* a renewal sent twice is one renewal */
	spec.total_timeout_ms = CALL_MS;
	spec.on_done = on_done;
	spec.arg = self;
	self->call = http_call_start(self->client->http, &spec);
	if (!self->call)
		loop_timer_start(self->client->loop, &self->timer, RETRY_MAX_MS);
}

static uint64_t self_beat_ms(const struct reg_self *self)
{
	return self->instance.lease_s * MSEC_PER_SEC / BEATS_PER_LEASE;
}

/* Tries the next registry before long; often enough that the lease does not run out meanwhile. */
static void self_retry(struct reg_self *self)
{
	uint64_t most_ms = MIN((uint64_t)RETRY_MAX_MS, self_beat_ms(self));
	uint64_t next_ms = MAX(self->backoff_ms * 2, (uint64_t)RETRY_MIN_MS);

	self->backoff_ms = MIN(next_ms, most_ms);
	self->url = (self->url + 1) % self->client->url_count;
	loop_timer_start(self->client->loop, &self->timer, reg_client_jitter(self->backoff_ms));
}

static void self_renewed(struct reg_self *self)
{
	self->is_registered = true;
	self->is_refused = false;
	self->backoff_ms = 0;
	loop_timer_start(self->client->loop, &self->timer, self_beat_ms(self));
}

static void self_on_registered(struct http_call *call, const struct http_result *result, void *arg)
{
	struct reg_self *self = arg;

	(void)call;
	self->call = NULL;
	if (result->status == 200 || result->status == 201) {
		self_renewed(self);
		return;
	}
	if (result->status >= 400 && result->status < 500 && !self->is_refused) {
		self->is_refused = true;
		reg_client_tell(self->client, REG_CLIENT_SELF, "%s%s: status %u: %.*s",
				self->client->urls[self->url].text, self->path, result->status,
				(int)MIN(result->body.len, (size_t)300), result->body.p);
	}
	self_retry(self);
}

static void self_on_renewed(struct http_call *call, const struct http_result *result, void *arg)
{
	struct reg_self *self = arg;

	(void)call;
	self->call = NULL;
	if (result->status == 204) {
		self_renewed(self);
	} else if (result->status == 404) {
		self->is_registered = false;
		self_register(self);
	} else {
		self_retry(self);
	}
}

static void self_register(struct reg_self *self)
{
	struct json_writer w;
	struct buf body;

	buf_init(&body, 0);
	w = json_writer(&body);
	reg_instance_write(&w, NULL, NULL, &self->instance);
	self_call(self, METHOD_PUT, "", buf_str(&body), self_on_registered);
	buf_fini(&body);
}

static void self_on_timer(struct loop_timer *timer)
{
	struct reg_self *self = container_of(timer, struct reg_self, timer);

	/* After a failure too: the registry says whether it still knows us. */
	if (self->is_registered)
		self_call(self, METHOD_POST, "/renew", STR(""), self_on_renewed);
	else
		self_register(self);
}

static bool self_copy(struct reg_self *self, const struct reg_instance *instance, struct err *err)
{
	struct reg_problem problem;
	struct json_writer w;
	struct buf b;
	json_t *json;
	int r;

	/* By way of the JSON that will be sent: what the registry would refuse is refused here. */
	buf_init(&b, 0);
	w = json_writer(&b);
	reg_instance_write(&w, NULL, NULL, instance);
	json = json_loadb(buf_data(&b), buf_len(&b), 0, NULL);
	r = reg_instance_read(&self->instance, json, str_of(NULL, 0), 30, &self->arena, &problem);
	json_decref(json);
	if (r == -EINVAL)
		err_set(err, r, "%s %s", problem.field, problem.text);
	buf_reset(&b, SIZE_MAX);
	buf_addz(&b, "/v1/apps/");
	buf_addz(&b, self->app);
	buf_addz(&b, "/instances/");
	if (r == 0) {
		http_encode(&b, self->instance.id);
		self->path = buf_failed(&b) ? NULL : arena_strz(&self->arena, buf_str(&b));
	}
	buf_fini(&b);
	if (r == 0 && !self->path)
		r = -ENOMEM;
	if (r == -ENOMEM)
		err_set(err, r, "out of memory");
	return r == 0;
}

static void self_on_done(struct loop_task *task)
{
	struct reg_self *self = container_of(task, struct reg_self, done);
	void (*on_done)(void *arg) = self->on_done;
	void *arg = self->arg;

	self_free(self);
	if (on_done)
		on_done(arg);
}

struct reg_self *reg_self_start(struct reg_client *client, struct str app,
				const struct reg_instance *instance, struct err *err)
{
	struct reg_self *self = calloc(1, sizeof(*self));

	if (!self) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	self->client = client;
	self->url = client->url;
	self->timer.on_fire = self_on_timer;
	self->done.run = self_on_done;
	list_init(&self->done.node);
	list_add_tail(&client->selfs, &self->node);
	arena_init(&self->arena, 1024, 0);
	if (!reg_app_name(app, self->app)) {
		err_set(err, -EINVAL,
			"app must have 1 to %d letters, digits, \".\", \"_\" or \"-\"",
			REG_APP_MAX);
		self_free(self);
		return NULL;
	}
	if (!self_copy(self, instance, err)) {
		self_free(self);
		return NULL;
	}
	self_register(self);
	return self;
}

void reg_self_set_status(struct reg_self *self, enum reg_status status)
{
	if (self->instance.status == status)
		return;
	self->instance.status = status;
	loop_timer_stop(self->client->loop, &self->timer);
	self->is_registered = false;
	self_register(self);
}

bool reg_self_is_registered(const struct reg_self *self)
{
	return self->is_registered;
}

static void self_on_left(struct http_call *call, const struct http_result *result, void *arg)
{
	struct reg_self *self = arg;

	(void)call;
	(void)result;
	self->call = NULL;
	loop_defer(self->client->loop, &self->done);
}

void reg_self_stop(struct reg_self **selfp, void (*on_done)(void *arg), void *arg)
{
	struct reg_self *self = TAKE_PTR(*selfp);

	if (!self)
		return;
	self->on_done = on_done;
	self->arg = arg;
	loop_timer_stop(self->client->loop, &self->timer);
	/* Also if no answer to a registration came: it may have arrived. */
	self_call(self, METHOD_DELETE, "", STR(""), self_on_left);
	if (self->call)
		return;
	loop_timer_stop(self->client->loop, &self->timer);
	loop_defer(self->client->loop, &self->done);
}

void reg_self_forget(struct reg_self **selfp)
{
	struct reg_self *self = TAKE_PTR(*selfp);

	if (self)
		self_free(self);
}

void reg_client_free_selfs(struct reg_client *c)
{
	list_for_each_safe (node, &c->selfs)
		self_free(container_of(node, struct reg_self, node));
}
