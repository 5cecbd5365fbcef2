/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/redis.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hex.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/metrics.h"

#define READ_SIZE    16384
#define ROUND_READS  16 /* then others of the loop get their turn */
#define MAX_ELEMENTS (1U << 20)
/* A connection that lasted shorter than this is no success: the pauses go on growing. */
#define STABLE_MS 1000
#define EVENTS    (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* What the array's size is passed as changed between 0.14 (Debian 12) and 1.0 (Debian 13). */
#if HIREDIS_MAJOR < 1
typedef int element_count;
#else
typedef size_t element_count;
#endif

enum redis_state {
	REDIS_DOWN,       /* waits for the next attempt */
	REDIS_CONNECTING, /* the kernel does */
	REDIS_GREETING,   /* AUTH, SELECT, PING are on their way */
	REDIS_UP,
};

/* A command without an answer. */
struct pending {
	struct list node;
	redis_answer_fn *on_answer;
	void *arg;
	uint64_t begun_ns;
	uint32_t timeout_ms;
	/* Scripts keep what they sent, for a server that forgot the script. */
	struct redis_script *script;
	uint64_t loaded;
	size_t len;
	char bytes[];
};

struct redis {
	struct loop *loop;
	struct redis_options options;
	char name[64];
	enum redis_state state;
	struct loop_io io;       /* fd -1 without a connection */
	struct loop_timer timer; /* DOWN: next attempt; until UP: connecting; UP: the oldest answer
				  */
	struct loop_task flush, again;
	struct buf out;
	struct redisReader *reader;
	redisReplyObjectFunctions functions;
	void *(*default_array)(const redisReadTask *task, element_count n);
	struct list pending; /* oldest first */
	size_t pending_count;
	size_t unparsed; /* bytes read since the last complete answer */
	uint32_t backoff_ms;
	uint64_t up_ms;      /* since when */
	uint64_t first_load; /* scripts sent before this number are unknown to this connection */
	bool is_stale;       /* to be dropped: what it is connected to serves us no longer */
	struct redis_stats stats;
};

static void redis_down(struct redis *r, int error, const char *detail);

/* --- hiredis' reader ------------------------------------------------------------------------ */

/* The reader allocates as many elements as the server announces, before the first one came. */
static void *bounded_array(const redisReadTask *task, element_count n)
{
	const struct redis *r = task->privdata;

	if ((uint64_t)n > MAX_ELEMENTS)
		return NULL;
	return r->default_array(task, n);
}

static int reader_renew(struct redis *r)
{
	struct redisReader *fresh = redisReaderCreate();

	if (!fresh)
		return -ENOMEM;
	if (r->reader)
		redisReaderFree(r->reader);
	r->default_array = fresh->fn->createArray;
	r->functions = *fresh->fn;
	r->functions.createArray = bounded_array;
	fresh->fn = &r->functions;
	fresh->privdata = r;
	r->reader = fresh;
	r->unparsed = 0;
	return 0;
}

/* --- sending -------------------------------------------------------------------------------- */

static void encode_count(struct buf *out, size_t count)
{
	buf_putc(out, '*');
	buf_u64(out, count);
	buf_addz(out, "\r\n");
}

static void encode_items(struct buf *out, const struct str *args, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		buf_putc(out, '$');
		buf_u64(out, args[i].len);
		buf_addz(out, "\r\n");
		buf_add(out, args[i]);
		buf_addz(out, "\r\n");
	}
}

/* An upper bound of what both write. */
static size_t encoded_max(const struct str *args, size_t count)
{
	size_t sum = 32;

	for (size_t i = 0; i < count; i++)
		sum += args[i].len + 32;
	return sum;
}

static void redis_arm(struct redis *r)
{
	struct pending *oldest;
	uint64_t due_ms, now_ms = loop_now_ms(r->loop);

	if (r->state != REDIS_UP)
		return;
	if (list_empty(&r->pending)) {
		loop_timer_stop(r->loop, &r->timer);
		return;
	}
	oldest = container_of(r->pending.next, struct pending, node);
	due_ms = oldest->begun_ns / NSEC_PER_MSEC + oldest->timeout_ms;
	loop_timer_start(r->loop, &r->timer, due_ms > now_ms ? due_ms - now_ms : 1);
}

static void redis_flush(struct redis *r)
{
	while (buf_len(&r->out) && r->io.fd >= 0 && r->state != REDIS_CONNECTING) {
		ssize_t n = send(r->io.fd, buf_data(&r->out), buf_len(&r->out), MSG_NOSIGNAL);

		if (n >= 0) {
			buf_consume(&r->out, (size_t)n);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			redis_down(r, -ECONNRESET, strerror(errno));
			return;
		}
	}
}

static void redis_on_flush(struct loop_task *task)
{
	redis_flush(container_of(task, struct redis, flush));
}

/* Appends to the output and to the list of those that wait; `p` is taken over. */
static void redis_enqueue(struct redis *r, struct pending *p)
{
	list_add_tail(&r->pending, &p->node);
	r->pending_count++;
	/* The deadline of the oldest is the one that counts. */
	if (r->pending_count == 1)
		redis_arm(r);
	loop_defer(r->loop, &r->flush);
}

static struct pending *pending_new(struct redis *r, redis_answer_fn *on_answer, void *arg,
				   uint32_t timeout_ms, size_t len)
{
	struct pending *p = malloc(sizeof(*p) + len);

	if (!p)
		return NULL;
	*p = (struct pending) {
		.on_answer = on_answer,
		.arg = arg,
		.begun_ns = loop_now_ns(r->loop),
		.timeout_ms = timeout_ms,
		.len = len,
	};
	return p;
}

static bool has_room(const struct redis *r, size_t bytes)
{
	return r->pending_count < r->options.max_pending &&
	       buf_len(&r->out) + bytes <= r->options.max_out;
}

/* Without asking whether the connection is up: the greeting is sent this way too. */
static int redis_send(struct redis *r, uint32_t timeout_ms, const struct str *args, size_t count,
		      redis_answer_fn *on_answer, void *arg)
{
	struct pending *p = pending_new(r, on_answer, arg, timeout_ms, 0);

	if (!p)
		return -ENOMEM;
	/* Room for all of it first: half a command in the output would be the end of it. */
	if (!buf_reserve(&r->out, encoded_max(args, count))) {
		r->out.has_failed = false;
		free(p);
		return -ENOMEM;
	}
	encode_count(&r->out, count);
	encode_items(&r->out, args, count);
	redis_enqueue(r, p);
	return 0;
}

static int redis_refuse(struct redis *r, int error)
{
	metrics_inc(&r->stats.refused, 1);
	return error;
}

int redis_command_for(struct redis *r, uint32_t timeout_ms, const struct str *args, size_t count,
		      redis_answer_fn *on_answer, void *arg)
{
	int rc;

	if (!redis_is_up(r))
		return redis_refuse(r, -ENOTCONN);
	if (!has_room(r, encoded_max(args, count)))
		return redis_refuse(r, -ENOBUFS);
	rc = redis_send(r, timeout_ms, args, count, on_answer, arg);
	if (rc < 0)
		return redis_refuse(r, rc);
	metrics_inc(&r->stats.commands, 1);
	return 0;
}

int redis_command(struct redis *r, const struct str *args, size_t count, redis_answer_fn *on_answer,
		  void *arg)
{
	return redis_command_for(r, r->options.command_timeout_ms, args, count, on_answer, arg);
}

/* --- scripts -------------------------------------------------------------------------------- */

void redis_script_init(struct redis_script *script, struct str text)
{
	unsigned char digest[EVP_MAX_MD_SIZE] = { 0 };
	char *at = script->sha;

	*script = (struct redis_script) { .text = text };
	/* Redis names scripts by their SHA-1: a name, no proof of anything. */
	EVP_Digest(text.p, text.len, digest, NULL, EVP_sha1(), NULL);
	hex_put(&at, digest, 20);
	*at = '\0';
}

/* One number for all connections, so that a script can tell whether this one knows it. */
static uint64_t next_load(void)
{
	static uint64_t last;

	return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

static int script_load(struct redis *r, struct redis_script *script)
{
	const struct str args[] = { STR("SCRIPT"), STR("LOAD"), script->text };
	int rc = redis_send(r, r->options.command_timeout_ms, args, ARRAY_SIZE(args), NULL, NULL);

	if (rc == 0)
		script->loaded = next_load();
	return rc;
}

int redis_eval(struct redis *r, struct redis_script *script, size_t key_count,
	       const struct str *args, size_t count, redis_answer_fn *on_answer, void *arg)
{
	size_t room = encoded_max(args, count) + 128;
	bool is_known = script->loaded > r->first_load;
	char number[24];
	struct str head[3] = { STR("EVALSHA"), str_of(script->sha, 40) };
	struct pending *p;
	struct buf bytes;

	if (!redis_is_up(r))
		return redis_refuse(r, -ENOTCONN);
	if (!has_room(r, room + (is_known ? 0 : script->text.len + 256)))
		return redis_refuse(r, -ENOBUFS);
	snprintf(number, sizeof(number), "%zu", key_count);
	head[2] = str_from(number);
	buf_init(&bytes, 0);
	encode_count(&bytes, ARRAY_SIZE(head) + count);
	encode_items(&bytes, head, ARRAY_SIZE(head));
	encode_items(&bytes, args, count);
	p = buf_failed(&bytes) ? NULL
			       : pending_new(r, on_answer, arg, r->options.command_timeout_ms,
					     buf_len(&bytes));
	if (!p || !buf_reserve(&r->out, room) || (!is_known && script_load(r, script) < 0) ||
	    !buf_reserve(&r->out, room)) {
		r->out.has_failed = false;
		buf_fini(&bytes);
		free(p);
		return redis_refuse(r, -ENOMEM);
	}
	p->script = script;
	p->loaded = script->loaded;
	memcpy(p->bytes, buf_data(&bytes), p->len);
	buf_fini(&bytes);
	buf_append(&r->out, p->bytes, p->len);
	redis_enqueue(r, p);
	metrics_inc(&r->stats.commands, 1);
	return 0;
}

static bool is_noscript(const struct redisReply *reply)
{
	return reply->type == REDIS_REPLY_ERROR && str_starts(redis_text(reply), STR("NOSCRIPT"));
}

/* Sends a script's command once more. False: no, take the error. */
static bool pending_repeat(struct redis *r, struct pending *p)
{
	if (!p->script || r->is_stale || !has_room(r, p->len + p->script->text.len + 256))
		return false;
	/* Of many commands that met the server without the script only the first loads it. */
	if (p->script->loaded == p->loaded && script_load(r, p->script) < 0)
		return false;
	if (!buf_reserve(&r->out, p->len)) {
		r->out.has_failed = false;
		return false;
	}
	buf_append(&r->out, p->bytes, p->len);
	p->script = NULL;
	redis_enqueue(r, p);
	return true;
}

/* --- receiving ------------------------------------------------------------------------------ */

static void pending_end(struct pending *p, const struct redis_answer *answer)
{
	if (p->on_answer)
		p->on_answer(answer, p->arg);
	free(p);
}

static struct pending *redis_take_oldest(struct redis *r)
{
	struct pending *p;

	if (list_empty(&r->pending))
		return NULL;
	p = container_of(r->pending.next, struct pending, node);
	list_remove(&p->node);
	r->pending_count--;
	return p;
}

static void redis_answered(struct redis *r, struct pending *p, const struct redisReply *reply)
{
	struct redis_answer answer = { .reply = reply, .problem = "" };
	struct str text = redis_text(reply);

	metrics_inc(&r->stats.answers, 1);
	metrics_inc(&r->stats.answer_us, (clock_mono_ns() - p->begun_ns) / 1000);
	if (reply->type == REDIS_REPLY_ERROR) {
		metrics_inc(&r->stats.errors, 1);
		answer.error = -EREMOTEIO;
		answer.problem = reply->str;
		/* The address may lead to the new primary by now. */
		if (str_starts(text, STR("READONLY")) || str_starts(text, STR("MASTERDOWN")))
			r->is_stale = true;
	}
	pending_end(p, &answer);
}

/* Hands out what is complete. Returns false when the connection is gone. */
static bool redis_parse(struct redis *r)
{
	for (;;) {
		struct pending *p;
		void *reply = NULL;

		if (redisReaderGetReply(r->reader, &reply) != REDIS_OK) {
			redis_down(r, -EPROTO, "the answer is not in Redis' language");
			return false;
		}
		if (!reply)
			break;
		r->unparsed = 0;
		p = redis_take_oldest(r);
		if (!p) {
			freeReplyObject(reply);
			redis_down(r, -EPROTO, "the server spoke without being asked");
			return false;
		}
		if (!is_noscript(reply) || !pending_repeat(r, p))
			redis_answered(r, p, reply);
		freeReplyObject(reply);
		if (r->is_stale) {
			redis_down(r, -ECONNRESET, "the server is a replica that takes no writes");
			return false;
		}
		if (r->io.fd < 0)
			return false;
	}
	redis_arm(r);
	return true;
}

static void redis_read(struct redis *r)
{
	char bytes[READ_SIZE];

	for (int i = 0; i < ROUND_READS; i++) {
		ssize_t n = recv(r->io.fd, bytes, sizeof(bytes), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			redis_down(r, -ECONNRESET,
				   n == 0 ? "the server closed the connection" : strerror(errno));
			return;
		}
		r->unparsed += (size_t)n;
		if (redisReaderFeed(r->reader, bytes, (size_t)n) != REDIS_OK) {
			redis_down(r, -ENOMEM, "out of memory");
			return;
		}
		if (!redis_parse(r))
			return;
		if (r->unparsed > r->options.max_reply) {
			redis_down(r, -EPROTO, "an answer is longer than allowed");
			return;
		}
	}
	loop_defer(r->loop, &r->again);
}

static void redis_on_again(struct loop_task *task)
{
	redis_read(container_of(task, struct redis, again));
}

/* --- up and down ---------------------------------------------------------------------------- */

static void redis_tell(struct redis *r, bool is_up, const char *detail)
{
	metrics_set(&r->stats.is_up, is_up);
	if (r->options.on_state)
		r->options.on_state(r, is_up, detail, r->options.arg);
}

static void redis_close(struct redis *r)
{
	loop_cancel(&r->flush);
	loop_cancel(&r->again);
	loop_timer_stop(r->loop, &r->timer);
	if (r->io.fd >= 0) {
		loop_io_remove(r->loop, &r->io);
		close(TAKE_FD(r->io.fd));
	}
	buf_reset(&r->out, READ_SIZE);
	r->is_stale = false;
}

/* Those that wait learn that no answer will come. */
static void redis_give_up(struct redis *r, int error, const char *detail)
{
	struct redis_answer answer = { .error = error, .problem = detail };
	struct pending *p;

	while ((p = redis_take_oldest(r)) != NULL) {
		metrics_inc(&r->stats.lost, 1);
		pending_end(p, &answer);
	}
}

static void redis_down(struct redis *r, int error, const char *detail)
{
	uint64_t delay_ms;
	char why[160];

	if (r->state == REDIS_DOWN)
		return;
	/* Callbacks may make hiredis or errno forget it. */
	snprintf(why, sizeof(why), "%s", detail);
	if (r->state == REDIS_UP && loop_now_ms(r->loop) - r->up_ms >= STABLE_MS)
		r->backoff_ms = 0;
	r->state = REDIS_DOWN;
	redis_close(r);
	metrics_inc(&r->stats.failures, 1);
	r->backoff_ms = MIN(MAX(r->backoff_ms * 2, r->options.backoff_min_ms),
			    r->options.backoff_max_ms);
	/* Not all clients at the same moment. */
	delay_ms = r->backoff_ms / 2 + random_fast() % (r->backoff_ms + 1);
	loop_timer_start(r->loop, &r->timer, delay_ms);
	redis_give_up(r, error, why);
	redis_tell(r, false, why);
}

static void redis_on_pong(const struct redis_answer *answer, void *arg)
{
	struct redis *r = arg;

	/* redis_down is at work. */
	if (!answer->reply)
		return;
	if (answer->error == 0 && !str_eq(redis_text(answer->reply), STR("PONG"))) {
		redis_down(r, -EPROTO, "the server answers PING by something else than PONG");
		return;
	}
	if (answer->error < 0) {
		redis_down(r, answer->error, answer->problem);
		return;
	}
	r->state = REDIS_UP;
	r->up_ms = loop_now_ms(r->loop);
	metrics_inc(&r->stats.connects, 1);
	redis_arm(r);
	redis_tell(r, true, "");
}

/* AUTH and SELECT: without them nothing else makes sense. */
static void redis_on_greeting(const struct redis_answer *answer, void *arg)
{
	if (answer->error == -EREMOTEIO)
		redis_down(arg, answer->error, answer->problem);
}

static int redis_greet(struct redis *r)
{
	const struct redis_url *url = &r->options.url;
	struct str auth[3] = { STR("AUTH") };
	const struct str name[] = { STR("CLIENT"), STR("SETNAME"), str_from(r->name) };
	const struct str ping[] = { STR("PING") };
	char db[16];
	struct str select[] = { STR("SELECT"), STR("") };
	size_t n = 1;
	int rc = 0;

	r->state = REDIS_GREETING;
	if (url->user[0])
		auth[n++] = str_from(url->user);
	auth[n++] = str_from(url->password);
	if (url->user[0] || url->password[0])
		rc = redis_send(r, 0, auth, n, redis_on_greeting, r);
	if (rc == 0 && r->name[0])
		rc = redis_send(r, 0, name, ARRAY_SIZE(name), NULL, NULL);
	snprintf(db, sizeof(db), "%u", url->db);
	select[1] = str_from(db);
	if (rc == 0 && url->db)
		rc = redis_send(r, 0, select, ARRAY_SIZE(select), redis_on_greeting, r);
	if (rc == 0)
		rc = redis_send(r, 0, ping, ARRAY_SIZE(ping), redis_on_pong, r);
	return rc;
}

static void redis_connect(struct redis *r)
{
	int fd, rc;

	r->state = REDIS_CONNECTING;
	rc = reader_renew(r);
	if (rc == 0) {
		fd = net_connect(&r->options.url.addr);
		rc = fd < 0 ? fd : 0;
		r->io.fd = fd < 0 ? -1 : fd;
	}
	if (rc == 0) {
		rc = loop_io_add(r->loop, &r->io, EVENTS);
		if (rc < 0)
			close(TAKE_FD(r->io.fd));
	}
	if (rc < 0) {
		redis_down(r, rc, strerror(-rc));
		return;
	}
	r->first_load = next_load();
	loop_timer_start(r->loop, &r->timer, r->options.connect_timeout_ms);
}

static void redis_on_timer(struct loop_timer *timer)
{
	struct redis *r = container_of(timer, struct redis, timer);

	if (r->state == REDIS_DOWN) {
		redis_connect(r);
		return;
	}
	metrics_inc(&r->stats.timeouts, 1);
	redis_down(r, -ETIMEDOUT,
		   r->state == REDIS_UP ? "the server does not answer in time"
					: "the connection does not come up in time");
}

static void redis_on_event(struct loop_io *io, uint32_t events)
{
	struct redis *r = container_of(io, struct redis, io);

	if (r->state == REDIS_CONNECTING) {
		int rc = net_socket_error(r->io.fd);

		if (rc == 0 && !(events & EPOLLOUT))
			return;
		if (rc == 0)
			rc = redis_greet(r);
		if (rc < 0) {
			redis_down(r, rc, strerror(-rc));
			return;
		}
	}
	if (events & EPOLLOUT)
		redis_flush(r);
	if (r->io.fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		redis_read(r);
}

/* --- life ----------------------------------------------------------------------------------- */

static void options_complete(struct redis_options *o)
{
	o->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 1000;
	o->command_timeout_ms = o->command_timeout_ms ? o->command_timeout_ms : 1000;
	o->backoff_min_ms = o->backoff_min_ms ? o->backoff_min_ms : 100;
	o->backoff_max_ms = o->backoff_max_ms ? o->backoff_max_ms : 5000;
	o->max_pending = o->max_pending ? o->max_pending : 4096;
	o->max_out = o->max_out ? o->max_out : 1U << 20;
	o->max_reply = o->max_reply ? o->max_reply : 64U << 20;
}

struct redis *redis_new(struct loop *loop, const struct redis_options *options)
{
	struct redis *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->loop = loop;
	r->options = *options;
	options_complete(&r->options);
	/* A name may hold no spaces. */
	snprintf(r->name, sizeof(r->name), "%s", options->name ? options->name : "");
	for (char *c = r->name; *c; c++) {
		if (*c <= ' ' || *c > '~')
			*c = '-';
	}
	r->io = (struct loop_io) { .fd = -1, .on_event = redis_on_event };
	r->timer.on_fire = redis_on_timer;
	r->flush.run = redis_on_flush;
	r->again.run = redis_on_again;
	buf_init(&r->out, 0);
	list_init(&r->pending);
	loop_timer_start(loop, &r->timer, 0);
	return r;
}

void redis_free(struct redis **rp)
{
	struct redis *r = *rp;

	if (!r)
		return;
	*rp = NULL;
	r->state = REDIS_DOWN;
	redis_close(r);
	redis_give_up(r, -ECANCELED, "the client is being closed");
	if (r->reader)
		redisReaderFree(r->reader);
	buf_fini(&r->out);
	OPENSSL_cleanse(r->options.url.password, sizeof(r->options.url.password));
	free(r);
}

bool redis_is_up(const struct redis *r)
{
	return r->state == REDIS_UP;
}

bool redis_is_full(const struct redis *r)
{
	return !has_room(r, 0);
}

const struct redis_stats *redis_stats(const struct redis *r)
{
	return &r->stats;
}

/* --- answers -------------------------------------------------------------------------------- */

const struct redisReply *redis_item(const struct redisReply *reply, size_t i)
{
	return reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements ? reply->element[i]
										: NULL;
}

struct str redis_text(const struct redisReply *reply)
{
	if (!reply || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS &&
		       reply->type != REDIS_REPLY_ERROR))
		return (struct str) { 0 };
	return str_of(reply->str, reply->len);
}

bool redis_int(const struct redisReply *reply, int64_t *out)
{
	struct str text = redis_text(reply);
	bool is_negative;
	uint64_t n;

	if (reply && reply->type == REDIS_REPLY_INTEGER) {
		*out = reply->integer;
		return true;
	}
	is_negative = text.len && text.p[0] == '-';
	if (is_negative)
		text = str_sub(text, 1, text.len);
	if (!text.p || !str_u64(text, &n) || n > INT64_MAX)
		return false;
	*out = is_negative ? -(int64_t)n : (int64_t)n;
	return true;
}
