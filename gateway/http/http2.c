/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/http2.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>

#include "gateway/http/h2guard.h"
#include "gateway/pipeline.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "lib/http1.h"

#define STREAMS_MAX    100
#define STREAM_WINDOW  65535UL
#define CONN_WINDOW    (1 << 20) /* so much request body is held at most per connection */
#define OUT_HIGH       (64UL * 1024)
#define CONN_OUT_TOTAL (1UL << 20) /* the same for all streams of a connection */
#define OUT_LOW        (16UL * 1024)
/* Slow bodies, as in http1.c: at least 500 bytes a second beyond body_timeout_ms of patience. */
#define BODY_MS_PER_BYTE 2
#define READS_PER_ROUND  4 /* then the worker's other connections have their turn */
#define PREFACE_LEN      24
#define FRAME_HEAD       9
#define FRAME_DATA_MAX   16384 /* SETTINGS_MAX_FRAME_SIZE, of which we leave the default */
#define SHUTDOWN_MS      500   /* from the announcement of the end to the end of new streams */

/*
 * Patience with frames that cost us work and bring nothing: a bucket that frames empty and time,
 * data and finished requests fill. Nearly empty: GOAWAY; empty: closed. Generous enough for any
 * client that does something useful in between.
 */
#define PATIENCE_FULL    1000
#define PATIENCE_GOAWAY  (PATIENCE_FULL / 4)
#define PATIENCE_PER_S   50
#define PATIENCE_REQUEST 5
#define PATIENCE_DATA    2
#define COST_FRAME       1 /* any, also those that nghttp2 ignores */
#define COST_CONTROL     4 /* more for PING and SETTINGS, which must be answered */
#define COST_RESET       5 /* more for a request cancelled, or made so wrong that we cancel it */
#define COST_EMPTY_DATA  5
#define COST_REFUSED     1 /* more for a stream beyond a limit that the client may not know yet */
#define COST_INVALID     20

struct http2 {
	struct conn *conn;
	nghttp2_session *session;
	struct list streams;
	unsigned stream_count;
	bool has_incoming; /* a header block that is not complete */
	int patience;
	uint64_t patience_ms; /* when it was last filled by time */
	bool is_leaving;      /* the end was announced */
	bool is_gone;         /* GOAWAY with the last stream is out */
	struct loop_timer shutdown;
	uint64_t frame_skip;                  /* bytes until the next frame begins */
	unsigned char frame_head[FRAME_HEAD]; /* of which frame_head_have bytes are read */
	unsigned frame_head_have;
	unsigned frames; /* begun since they were paid for */
	struct h2guard guard;
	size_t out_total; /* response bytes of all streams that are not in frames yet */
};

struct stream {
	struct list node;
	struct http2 *h;
	int32_t id;
	struct request *r;
	struct buf in;  /* body that the sink did not take yet; the stream's window bounds it */
	struct buf out; /* response body that is not in frames yet */
	struct loop_task task;
	struct loop_timer body_timer, write_timer;
	uint64_t head_bytes, body_bytes, wait_from_ms;
	int64_t body_credit_ms;
	uint64_t write_from_ms; /* when the response began to wait for the client */
	int64_t write_credit_ms;
	uint64_t out_left; /* of a response with a length */
	unsigned problem;  /* status to refuse it with once its head is complete */
	bool has_begun;    /* the pipeline ran */
	bool has_end;      /* the client sent END_STREAM */
	bool end_given;    /* ... and the sink knows */
	bool is_reset;     /* the client sent RST_STREAM */
	bool wants_body, owes_continue;
	bool out_ended, is_deferred, is_paused;
};

static struct stream *stream_of(struct request *r)
{
	return r->down_state;
}

static struct loop *loop_of(const struct http2 *h)
{
	return h->conn->worker->loop;
}

static const struct gw_client *client_conf(const struct http2 *h)
{
	return &h->conn->worker->conf->snapshot->conf.client;
}

/* --- patience ------------------------------------------------------------------------------ */

static void earn(struct http2 *h, int amount)
{
	h->patience = MIN(h->patience + amount, PATIENCE_FULL);
}

static void spend(struct http2 *h, int amount)
{
	uint64_t now = loop_now_ms(loop_of(h));
	uint64_t earned = (now - h->patience_ms) * PATIENCE_PER_S / 1000;

	if (earned) {
		earn(h, (int)MIN(earned, (uint64_t)PATIENCE_FULL));
		h->patience_ms = now;
	}
	h->patience -= amount;
	if (h->patience > PATIENCE_GOAWAY || h->is_gone)
		return;
	h->is_gone = h->is_leaving = true;
	metrics_inc(&h->conn->worker->counters.http2_floods, 1);
	nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(h->session),
			      NGHTTP2_ENHANCE_YOUR_CALM, NULL, 0);
}

/*
 * Reads on in `bytes` from `at`, counting the frames that begin: nghttp2 tells only of those that
 * it knows, and a flood of others would be free. Stops behind the header of a DATA frame.
 */
static size_t scan_frames(struct http2 *h, struct str bytes, size_t at, bool *is_data)
{
	*is_data = false;
	while (at < bytes.len && !*is_data) {
		unsigned char *head = h->frame_head;

		if (h->frame_skip) {
			size_t skip = (size_t)MIN(h->frame_skip, (uint64_t)(bytes.len - at));

			h->frame_skip -= skip;
			at += skip;
			continue;
		}
		head[h->frame_head_have++] = (unsigned char)bytes.p[at++];
		if (h->frame_head_have < FRAME_HEAD)
			continue;
		h->frame_head_have = 0;
		h->frame_skip = (uint64_t)head[0] << 16 | (uint64_t)head[1] << 8 | head[2];
		h->frames++;
		*is_data = head[3] == NGHTTP2_DATA;
	}
	return at;
}

/* --- streams --------------------------------------------------------------------------------- */

static void stream_free(struct stream *s)
{
	struct http2 *h = s->h;

	if (s->r) {
		s->r->down_state = NULL;
		request_free(s->r);
	}
	loop_cancel(&s->task);
	loop_timer_stop(loop_of(h), &s->body_timer);
	loop_timer_stop(loop_of(h), &s->write_timer);
	list_remove(&s->node);
	h->stream_count--;
	h->out_total -= buf_len(&s->out);
	buf_fini(&s->in);
	buf_fini(&s->out);
	free(s);
}

/* The client reset the stream or left: nobody waits for an answer any more. */
static void stream_lost(struct stream *s)
{
	struct request *r = s->r;

	if (r->is_ended)
		return;
	if (r->sink) {
		r->sink->cancel(r);
		r->sink = NULL;
	}
	r->is_ended = true;
	if (r->reason == REASON_NONE)
		r->reason = REASON_CLIENT_GONE;
	if (!r->has_head)
		r->response.status = 499;
}

static void stream_reset(struct stream *s, uint32_t code)
{
	s->r->is_ended = true;
	nghttp2_submit_rst_stream(s->h->session, NGHTTP2_FLAG_NONE, s->id, code);
	conn_kick(s->h->conn);
}

/* --- request bodies -------------------------------------------------------------------------- */

static void body_wait(struct stream *s)
{
	if (loop_timer_is_pending(&s->body_timer))
		return;
	s->wait_from_ms = loop_now_ms(loop_of(s->h));
	loop_timer_start(loop_of(s->h), &s->body_timer,
			 (uint64_t)MAX(s->body_credit_ms, (int64_t)1));
}

static void body_progress(struct stream *s, size_t bytes)
{
	if (!loop_timer_is_pending(&s->body_timer))
		return;
	loop_timer_stop(loop_of(s->h), &s->body_timer);
	s->body_credit_ms += (int64_t)bytes * BODY_MS_PER_BYTE -
			     (int64_t)(loop_now_ms(loop_of(s->h)) - s->wait_from_ms);
	s->body_credit_ms = MIN(s->body_credit_ms, (int64_t)client_conf(s->h)->body_timeout_ms);
}

static void body_failed(struct stream *s, unsigned status, enum request_reason reason,
			const char *detail)
{
	struct request *r = s->r;

	if (r->is_ended)
		return;
	if (r->sink) {
		r->sink->cancel(r);
		r->sink = NULL;
	}
	problem_send(r, status, reason, detail);
}

static void on_body_timeout(struct loop_timer *timer)
{
	struct stream *s = container_of(timer, struct stream, body_timer);

	body_failed(s, 408, REASON_CLIENT_TIMEOUT, "the request body comes too slowly");
	conn_kick(s->h->conn);
}

/* Hands on what came of the body, and gives the client window for more. */
static void stream_feed(struct stream *s)
{
	struct request *r = s->r;
	size_t len = buf_len(&s->in);

	if (r->is_ended) {
		/* Nobody wants it; other streams shall not suffer for it. */
		nghttp2_session_consume_connection(s->h->session, len);
		buf_reset(&s->in, 0);
		return;
	}
	if (!s->has_begun || !r->sink || !s->wants_body)
		return;
	if (len) {
		s->body_bytes += len;
		if (r->max_body && !r->is_tunnel && s->body_bytes > r->max_body) {
			body_failed(s, 413, REASON_TOO_LARGE,
				    "the request body is larger than this service allows");
			return;
		}
		s->wants_body = r->sink->data(r, buf_str(&s->in));
		nghttp2_session_consume(s->h->session, s->id, len);
		buf_reset(&s->in, 0);
		if (r->is_ended || !r->sink)
			return;
	}
	if (s->has_end && !s->end_given) {
		s->end_given = true;
		r->sink->end(r);
	} else if (!s->has_end && s->wants_body && !r->is_tunnel) {
		body_wait(s);
	}
}

/* At the end of the round: whatever a sink asked for from within our own call. */
static void stream_run(struct loop_task *task)
{
	struct stream *s = container_of(task, struct stream, task);
	struct request *r = s->r;

	if (s->is_paused && buf_len(&s->out) <= OUT_LOW) {
		s->is_paused = false;
		if (r->sink && !r->is_ended)
			r->sink->resume(r);
	}
	stream_feed(s);
	conn_kick(s->h->conn);
}

static void stream_schedule(struct stream *s)
{
	loop_defer(loop_of(s->h), &s->task);
}

/* --- responses ---------------------------------------------------------------------------------
 */

/* Field names are lower case on the wire (RFC 9113 8.2.1). */
static uint8_t *lower_name(struct request *r, struct str name)
{
	char *copy = arena_strz(&r->arena, name);

	for (char *p = copy; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return (uint8_t *)copy;
}

static nghttp2_nv nv_of(const char *name, struct str value)
{
	return (nghttp2_nv) {
		.name = (uint8_t *)(uintptr_t)name,
		.namelen = strlen(name),
		.value = (uint8_t *)(uintptr_t)value.p,
		.valuelen = value.len,
	};
}

/* What may come behind the body, as name and value pairs. NULL: nothing, or out of memory. */
static nghttp2_nv *make_trailers(struct request *r)
{
	const struct headers *trailers = &r->response.trailers;
	nghttp2_nv *nv = NULL;

	if (trailers->count)
		nv = arena_alloc(&r->arena, trailers->count * sizeof(*nv));
	for (size_t i = 0; nv && i < trailers->count; i++) {
		const uint8_t *name = lower_name(r, trailers->fields[i].name);

		if (!name)
			return NULL;
		nv[i] = nv_of((const char *)name, trailers->fields[i].value);
	}
	return nv;
}

static ssize_t read_out(nghttp2_session *session, int32_t id, uint8_t *unused, size_t length,
			uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct stream *s = source->ptr;
	size_t n = MIN(buf_len(&s->out), length);
	const nghttp2_nv *trailers;

	(void)unused;
	(void)arg;
	if (n == 0 && !s->out_ended) {
		s->is_deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	/* The bytes go from the stream's buffer into the connection's by send_data, once. */
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (!s->out_ended || n < buf_len(&s->out))
		return (ssize_t)n;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	trailers = make_trailers(s->r);
	if (trailers &&
	    nghttp2_submit_trailer(session, id, trailers, s->r->response.trailers.count) == 0)
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	return (ssize_t)n;
}

/* Reads no further than the response's own fields; a name that finds no room is left out. */
static size_t put_fields(struct request *r, nghttp2_nv *nv)
{
	size_t n = 0;

	for (size_t i = 0; i < r->response.headers.count; i++) {
		const struct http_field *f = &r->response.headers.fields[i];
		const uint8_t *name;

		/* The proof that HTTP/1.1 was understood; here :status says so. */
		if (r->is_tunnel && str_ieq(f->name, STR("Sec-WebSocket-Accept")))
			continue;
		name = lower_name(r, f->name);
		if (name)
			nv[n++] = nv_of((const char *)name, f->value);
	}
	return n;
}

static void down_interim(struct request *r)
{
	struct stream *s = stream_of(r);
	nghttp2_nv *nv = arena_alloc(&r->arena, (r->response.headers.count + 1) * sizeof(*nv));
	char status[12];
	size_t n;

	if (!nv || r->is_ended)
		return;
	snprintf(status, sizeof(status), "%u", r->response.status);
	nv[0] = nv_of(":status", str_from(status));
	n = 1 + put_fields(r, nv + 1);
	nghttp2_submit_headers(s->h->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv, n, NULL);
	conn_kick(s->h->conn);
}

static void down_head(struct request *r)
{
	struct stream *s = stream_of(r);
	const struct response *response = &r->response;
	size_t max = response->headers.count + 3, n = 0;
	nghttp2_nv *nv = arena_alloc(&r->arena, max * sizeof(*nv));
	nghttp2_data_provider provider = { .source.ptr = s, .read_callback = read_out };
	char status[12], length[24];

	if (!nv) {
		stream_reset(s, NGHTTP2_INTERNAL_ERROR);
		return;
	}
	/* A switch of protocols is a CONNECT that succeeded (RFC 8441 5). */
	if (r->is_tunnel)
		r->response.status = 200;
	snprintf(status, sizeof(status), "%u", response->status);
	nv[n++] = nv_of(":status", str_from(status));
	n += put_fields(r, nv + n);
	if (!http_find(response->headers.fields, response->headers.count, HTTP_DATE))
		nv[n++] = nv_of("date", worker_http_date(s->h->conn->worker));
	if (response->has_length) {
		snprintf(length, sizeof(length), "%llu", (unsigned long long)response->length);
		nv[n++] = nv_of("content-length", str_from(length));
	}
	s->out_left = response->has_length && response->has_body ? response->length : 0;
	if (nghttp2_submit_response(s->h->session, s->id, nv, n,
				    response->has_body ? &provider : NULL))
		stream_reset(s, NGHTTP2_INTERNAL_ERROR);
	conn_kick(s->h->conn);
}

/* There is something to send: the client has so much time to take some of it. */
static void write_wait(struct stream *s)
{
	if (buf_len(&s->out) == 0 || loop_timer_is_pending(&s->write_timer))
		return;
	s->write_from_ms = loop_now_ms(loop_of(s->h));
	loop_timer_start(loop_of(s->h), &s->write_timer,
			 (uint64_t)MAX(s->write_credit_ms, (int64_t)1));
}

/* The client took bytes: they earn time, waiting for them is paid. A client that opens its window
 * by single bytes would otherwise keep the response for ever. */
static void write_progress(struct stream *s, size_t bytes)
{
	if (!loop_timer_is_pending(&s->write_timer))
		return;
	loop_timer_stop(loop_of(s->h), &s->write_timer);
	s->write_credit_ms += (int64_t)bytes * BODY_MS_PER_BYTE -
			      (int64_t)(loop_now_ms(loop_of(s->h)) - s->write_from_ms);
	s->write_credit_ms = MIN(s->write_credit_ms, (int64_t)client_conf(s->h)->write_timeout_ms);
}

static void on_write_timeout(struct loop_timer *timer)
{
	struct stream *s = container_of(timer, struct stream, write_timer);

	if (s->r->reason == REASON_NONE)
		s->r->reason = REASON_CLIENT_TIMEOUT;
	if (!s->r->is_ended)
		stream_lost(s);
	stream_reset(s, NGHTTP2_CANCEL);
}

/* There is something for the client: frames are made when the connection is flushed. */
static bool queued(struct stream *s, size_t len)
{
	struct request *r = s->r;

	if (r->response.has_length) {
		if (len > s->out_left) {
			stream_reset(s, NGHTTP2_INTERNAL_ERROR);
			return false;
		}
		s->out_left -= len;
	}
	r->bytes_out += len;
	if (s->is_deferred) {
		s->is_deferred = false;
		nghttp2_session_resume_data(s->h->session, s->id);
	}
	s->h->out_total += len;
	write_wait(s);
	conn_kick(s->h->conn);
	/* Many streams at once are a reason to pause earlier, as long as this one has something
	 * queued whose end will wake it. */
	s->is_paused = buf_len(&s->out) > (s->h->out_total > CONN_OUT_TOTAL ? 0 : OUT_HIGH);
	return !s->is_paused;
}

static bool down_data(struct request *r, struct str data)
{
	struct stream *s = stream_of(r);

	if (data.len == 0 || r->is_ended)
		return true;
	buf_add(&s->out, data);
	if (buf_failed(&s->out)) {
		stream_reset(s, NGHTTP2_INTERNAL_ERROR);
		return false;
	}
	return queued(s, data.len);
}

static char *down_reserve(struct request *r, size_t want, size_t *room)
{
	struct stream *s = stream_of(r);
	char *at = r->is_ended ? NULL : buf_reserve(&s->out, want);

	*room = at ? buf_room(&s->out) : 0;
	return at;
}

static bool down_commit(struct request *r, size_t len)
{
	struct stream *s = stream_of(r);

	buf_commit(&s->out, len);
	return queued(s, len);
}

static void down_end(struct request *r)
{
	struct stream *s = stream_of(r);

	if (r->is_ended)
		return;
	if (r->response.has_body && r->response.has_length && s->out_left) {
		stream_reset(s, NGHTTP2_INTERNAL_ERROR);
		return;
	}
	/* The end was told before, now the client's side is given up. */
	if (s->out_ended && !s->has_end) {
		stream_reset(s, NGHTTP2_CANCEL);
		return;
	}
	r->is_ended = !r->is_tunnel || !r->sink;
	s->out_ended = true;
	if (s->is_deferred) {
		s->is_deferred = false;
		nghttp2_session_resume_data(s->h->session, s->id);
	}
	earn(s->h, PATIENCE_REQUEST);
	conn_kick(s->h->conn);
}

/* How the service ended its response, as far as that is the client's business. */
static uint32_t reset_code(const struct request *r)
{
	switch (r->reset_code) {
	case NGHTTP2_CANCEL:
	case NGHTTP2_ENHANCE_YOUR_CALM:
	case NGHTTP2_REFUSED_STREAM:
		return r->reset_code;
	default:
		return NGHTTP2_INTERNAL_ERROR;
	}
}

static void down_abort(struct request *r)
{
	if (!r->is_ended)
		stream_reset(stream_of(r), reset_code(r));
}

static void down_read_body(struct request *r)
{
	struct stream *s = stream_of(r);
	nghttp2_nv nv = nv_of(":status", STR("100"));

	s->wants_body = true;
	if (s->owes_continue && buf_len(&s->in) == 0)
		nghttp2_submit_headers(s->h->session, NGHTTP2_FLAG_NONE, s->id, NULL, &nv, 1, NULL);
	s->owes_continue = false;
	stream_schedule(s);
}

static const struct downstream_ops ops = {
	.head = down_head,
	.data = down_data,
	.reserve = down_reserve,
	.commit = down_commit,
	.end = down_end,
	.abort = down_abort,
	.read_body = down_read_body,
	.interim = down_interim,
};

/* --- request heads --------------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct http2 *h = arg;
	struct stream *s;

	if (frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	h->has_incoming = true;
	conn_set_deadline(h->conn, client_conf(h)->head_timeout_ms);
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	s->r = conn_request_new(h->conn, "HTTP/2", &ops, s);
	if (!s->r) {
		free(s);
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	s->h = h;
	s->id = frame->hd.stream_id;
	s->task.run = stream_run;
	s->body_timer.on_fire = on_body_timeout;
	s->write_timer.on_fire = on_write_timeout;
	s->body_credit_ms = client_conf(h)->body_timeout_ms;
	s->write_credit_ms = client_conf(h)->write_timeout_ms;
	buf_init(&s->in, 2 * STREAM_WINDOW);
	buf_init(&s->out, 16 * OUT_HIGH);
	list_add_tail(&h->streams, &s->node);
	h->stream_count++;
	nghttp2_session_set_stream_user_data(session, s->id, s);
	return 0;
}

/* Room for one more field and for those that the stages add; it doubles in the arena. */
static bool reserve_fields(struct request *r, struct headers *h)
{
	size_t max = h->max ? 2 * h->max : 2 * REQUEST_SPARE_FIELDS;
	struct http_field *fields;

	if (h->count + REQUEST_SPARE_FIELDS < h->max)
		return true;
	fields = arena_alloc(&r->arena, max * sizeof(*fields));
	if (!fields)
		return false;
	if (h->count)
		memcpy(fields, h->fields, h->count * sizeof(*fields));
	h->fields = fields;
	h->max = max;
	return true;
}

static bool add_field(struct request *r, struct headers *h, struct str name, struct str value)
{
	if (!reserve_fields(r, h))
		return false;
	h->fields[h->count++] = (struct http_field) { name, value, http_name_id(name) };
	return true;
}

/* The rest of what is forbidden there goes with headers_strip_trailers. */
static bool add_trailer(struct request *r, struct str name, struct str value)
{
	return http_is_token(name) && http_is_field_value(value) &&
	       add_field(r, &r->trailers, name, value);
}

static void take_pseudo(struct request *r, struct str name, struct str value)
{
	if (str_eq(name, STR(":method"))) {
		r->method = value;
		r->method_id = http_method_id(value);
	} else if (str_eq(name, STR(":authority"))) {
		r->authority = value;
	} else if (str_eq(name, STR(":path"))) {
		ptrdiff_t at = str_chr(value, '?');

		r->raw_path = at < 0 ? value : str_sub(value, 0, (size_t)at);
		r->query = (struct str) { 0 };
		if (at >= 0)
			r->query = str_sub(value, (size_t)at + 1, value.len);
	}
	if (str_eq(name, STR(":protocol")))
		r->upgrade = value;
	/* :scheme is what the client thinks; ours is what the connection is. */
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	const struct http2 *h = arg;
	struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	struct str copy_name, copy_value;

	(void)flags;
	if (!s)
		return 0;
	s->head_bytes += name_len + value_len + 32;
	if (s->head_bytes > client_conf(h)->max_head_bytes ||
	    s->r->headers.count + s->r->trailers.count >= client_conf(h)->max_fields) {
		if (s->has_begun)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		s->problem = 431;
		return 0;
	}
	copy_name = arena_str(&s->r->arena, str_of((const char *)name, name_len));
	copy_value = arena_str(&s->r->arena, str_of((const char *)value, value_len));
	if (!copy_name.p || !copy_value.p)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return add_trailer(s->r, copy_name, str_trim(copy_value))
			       ? 0
			       : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (name[0] == ':')
		take_pseudo(s->r, copy_name, str_trim(copy_value));
	else if (!add_field(s->r, &s->r->headers, copy_name, str_trim(copy_value)))
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return 0;
}

static const char *path_problem(struct str path, enum http_method method)
{
	if (path.len == 0 ||
	    (path.p[0] != '/' && !(str_eq(path, STR("*")) && method == METHOD_OPTIONS)))
		return ":path does not begin with \"/\"";
	return NULL;
}

static bool has_bad_byte(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c <= 0x20 || c >= 0x7f || c == '#')
			return true;
	}
	return false;
}

/*
 * Crumbs become one field again (RFC 9113 8.2.3): services of HTTP/1 know only one. In one piece:
 * HPACK makes crumbs of one byte on the wire, and joining them one by one would cost the square.
 */
static bool join_cookies(struct request *r)
{
	struct headers *h = &r->headers;
	struct http_field *first = NULL;
	size_t size = 0, crumbs = 0, kept = 0;
	char *joined, *at;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].id != HTTP_COOKIE)
			continue;
		size += h->fields[i].value.len + 2;
		crumbs++;
	}
	if (crumbs < 2)
		return true;
	joined = at = arena_alloc(&r->arena, size);
	if (!joined)
		return false;
	for (size_t i = 0; i < h->count; i++) {
		struct str crumb = h->fields[i].value;

		if (h->fields[i].id != HTTP_COOKIE) {
			h->fields[kept++] = h->fields[i];
			continue;
		}
		if (at != joined)
			at = mempcpy(at, "; ", 2);
		at = mempcpy(at, crumb.p, crumb.len);
		if (!first) {
			first = &h->fields[kept];
			h->fields[kept++] = h->fields[i];
		}
	}
	if (first)
		first->value = str_of(joined, (size_t)(at - joined));
	h->count = kept;
	return true;
}

/* What nghttp2 leaves to us. NULL, or what is wrong with the request. */
static const char *check_head(struct stream *s)
{
	struct request *r = s->r;
	const char *problem = path_problem(r->raw_path, r->method_id);
	const struct http_field *host = NULL;

	if (problem)
		return problem;
	if (has_bad_byte(r->raw_path) || has_bad_byte(r->query))
		return "forbidden byte in :path";
	for (size_t i = 0; i < r->headers.count; i++) {
		const struct http_field *f = &r->headers.fields[i];

		if (!http_is_token(f->name) || !http_is_field_value(f->value))
			return "malformed field";
		if (f->id == HTTP_HOST) {
			if (host)
				return "more than one Host";
			host = f;
		}
		if (f->id == HTTP_CONTENT_LENGTH) {
			r->has_length = true;
			if (!str_u64(f->value, &r->length))
				return "Content-Length is not a number";
		}
		if (f->id == HTTP_EXPECT && str_ieq(f->value, STR("100-continue")))
			s->owes_continue = r->has_body;
	}
	if (r->authority.len && host && !str_ieq(r->authority, host->value))
		return "Host differs from :authority";
	if (!r->authority.len && host)
		r->authority = host->value;
	if (!http_is_host(r->authority))
		return "no valid :authority or Host";
	return NULL;
}

/* An extended CONNECT (RFC 8441) is the GET of RFC 6455 in other words: what follows is no body. */
static void begin_connect(struct request *r)
{
	r->is_connect = true;
	r->has_body = false;
	r->method = STR("GET");
	r->method_id = METHOD_GET;
}

static void stream_begin(struct stream *s)
{
	struct request *r = s->r;
	const char *problem = NULL;

	s->has_begun = true;
	r->bytes_in = s->head_bytes;
	r->has_body = !s->has_end;
	if (s->problem) {
		problem_send(r, s->problem, REASON_BAD_REQUEST, "message head too large");
		return;
	}
	if (r->method_id == METHOD_CONNECT && !r->upgrade.p) {
		problem_send(r, 501, REASON_BAD_REQUEST, "CONNECT is not supported");
		return;
	}
	if (r->method_id == METHOD_CONNECT)
		begin_connect(r);
	if (r->method_id == METHOD_OTHER && !http1_knows_method(r->method)) {
		problem_send(r, 501, REASON_BAD_REQUEST, "unknown method");
		return;
	}
	problem = check_head(s);
	if (problem) {
		problem_send(r, 400, REASON_BAD_REQUEST, problem);
		return;
	}
	/* A request of pseudo-headers alone has no fields, and so far no room for any. */
	if (!reserve_fields(r, &r->headers) || !join_cookies(r)) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	/* A length of 0 with an open stream is no body either way the service is told. */
	if (!r->has_body && r->has_length)
		r->length = 0;
	pipeline_run(r);
}

/* --- frames ------------------------------------------------------------------------------------
 */

static void on_request_frame(struct http2 *h, const nghttp2_frame *frame)
{
	struct stream *s = nghttp2_session_get_stream_user_data(h->session, frame->hd.stream_id);

	if (!s)
		return;
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
		s->has_end = true;
		body_progress(s, 0);
	}
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		stream_begin(s);
	if (s->has_begun)
		stream_schedule(s);
}

static void on_reset_frame(struct http2 *h, const nghttp2_frame *frame)
{
	struct stream *s = nghttp2_session_get_stream_user_data(h->session, frame->hd.stream_id);

	if (s)
		s->is_reset = true;
	spend(h, COST_RESET);
}

/* False when the client must not send this frame on this stream now: the connection ends. */
static bool guard_frame(struct http2 *h, int32_t id, bool is_headers)
{
	const struct stream *s = nghttp2_session_get_stream_user_data(h->session, id);
	enum h2guard_stream state = !s ? H2GUARD_NONE : s->has_end ? H2GUARD_HALF : H2GUARD_OPEN;
	uint32_t error;

	/* After GOAWAY streams may come that are beyond it and never known. */
	if (h->is_gone)
		return true;
	error = h2guard_check(&h->guard, id, is_headers, state);
	if (error)
		nghttp2_session_terminate_session2(
			h->session, nghttp2_session_get_last_proc_stream_id(h->session), error);
	return error == 0;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
	(void)session;
	return hd->type != NGHTTP2_HEADERS || guard_frame(arg, hd->stream_id, true)
		       ? 0
		       : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/*
 * Feeds nghttp2, but for the last byte of each DATA frame's header: it tells nothing of DATA on
 * streams that it forgot, so these are looked at when all that came before was handled.
 */
static ssize_t feed(struct http2 *h, struct str bytes)
{
	size_t scanned = 0, fed = 0;

	while (fed < bytes.len) {
		bool is_data;
		size_t to;
		ssize_t n;

		scanned = scan_frames(h, bytes, scanned, &is_data);
		to = is_data ? scanned - 1 : scanned;
		n = nghttp2_session_mem_recv(h->session, (const uint8_t *)bytes.p + fed, to - fed);
		if (n < 0)
			return n;
		fed = to;
		if (is_data &&
		    !guard_frame(h,
				 (int32_t)((uint32_t)(h->frame_head[5] & 0x7f) << 24 |
					   (uint32_t)h->frame_head[6] << 16 |
					   (uint32_t)h->frame_head[7] << 8 | h->frame_head[8]),
				 false))
			return NGHTTP2_ERR_PROTO;
	}
	return (ssize_t)fed;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct http2 *h = arg;

	(void)session;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		h->has_incoming = false;
		on_request_frame(h, frame);
		break;
	case NGHTTP2_DATA:
		/* padlen counts the byte that tells it as well. */
		if (frame->hd.length == frame->data.padlen &&
		    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
			spend(h, COST_EMPTY_DATA);
		on_request_frame(h, frame);
		break;
	case NGHTTP2_RST_STREAM:
		on_reset_frame(h, frame);
		break;
	case NGHTTP2_SETTINGS:
	case NGHTTP2_PING:
		spend(h, COST_CONTROL);
		break;
	default:
		break;
	}
	return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error,
			    void *arg)
{
	struct http2 *h = arg;

	(void)session;
	/* A refused header block is over as well, and other requests of the connection shall not
	 * end with its deadline. */
	if (frame->hd.type == NGHTTP2_HEADERS) {
		h->has_incoming = false;
		/* Of a refused one nothing is told but this. */
		if (error == NGHTTP2_ERR_REFUSED_STREAM)
			h2guard_closed(&h->guard, frame->hd.stream_id, false);
	}
	spend(h, error == NGHTTP2_ERR_REFUSED_STREAM ? COST_REFUSED : COST_INVALID);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *arg)
{
	struct http2 *h = arg;
	struct stream *s = nghttp2_session_get_stream_user_data(session, id);

	(void)flags;
	earn(h, PATIENCE_DATA);
	if (!s) {
		nghttp2_session_consume_connection(session, len);
		return 0;
	}
	s->r->bytes_in += len;
	body_progress(s, len);
	buf_append(&s->in, data, len);
	if (buf_failed(&s->in))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	stream_schedule(s);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct stream *s = nghttp2_session_get_stream_user_data(session, id);

	if (!s) {
		h2guard_closed(&((struct http2 *)arg)->guard, id, false);
		return 0;
	}
	h2guard_closed(&s->h->guard, id, s->has_end || s->is_reset);
	if (!s->has_begun)
		s->h->has_incoming = false; /* it was this one's head */
	/* The last of what the client sent into a tunnel, after the service ended its side. */
	if (s->r->is_tunnel && code == NGHTTP2_NO_ERROR)
		stream_feed(s);
	nghttp2_session_consume_connection(session, buf_len(&s->in));
	stream_lost(s);
	stream_free(s);
	return 0;
}

/* --- output ------------------------------------------------------------------------------------
 */

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
		       void *arg)
{
	struct http2 *h = arg;
	size_t room;
	char *at;

	(void)session;
	(void)flags;
	if (conn_is_congested(h->conn))
		return NGHTTP2_ERR_WOULDBLOCK;
	at = conn_reserve(h->conn, len, &room);
	if (!at)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	memcpy(at, data, len);
	buf_commit(&h->conn->out, len);
	return (ssize_t)len;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
			size_t len, nghttp2_data_source *source, void *arg)
{
	struct http2 *h = arg;
	struct stream *s = source->ptr;
	size_t room;
	char *at;

	(void)session;
	(void)frame;
	if (conn_is_congested(h->conn))
		return NGHTTP2_ERR_WOULDBLOCK;
	at = conn_reserve(h->conn, FRAME_HEAD + len, &room);
	if (!at)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	memcpy(at, head, FRAME_HEAD);
	if (len)
		memcpy(at + FRAME_HEAD, buf_data(&s->out), len);
	buf_commit(&h->conn->out, FRAME_HEAD + len);
	buf_consume(&s->out, len);
	earn(h, PATIENCE_DATA);
	h->out_total -= len;
	write_progress(s, len);
	write_wait(s);
	if (s->is_paused && buf_len(&s->out) <= OUT_LOW)
		stream_schedule(s);
	return 0;
}

/*
 * A client can have us cancel its requests instead of doing so itself: by a body that is not of the
 * announced length, a window of more than 2^31, and more ("MadeYouReset", CVE-2025-8671). What
 * services and our own limits are to blame for is not charged.
 */
static void charge_reset(struct http2 *h, uint32_t code)
{
	switch (code) {
	case NGHTTP2_NO_ERROR:
	case NGHTTP2_INTERNAL_ERROR:
	case NGHTTP2_REFUSED_STREAM:
	case NGHTTP2_CANCEL:
		break;
	default:
		spend(h, COST_RESET);
	}
}

/* A response that is complete before its request: the rest of the request is not wanted (RFC
 * 9113 8.1). */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct stream *s;

	if (frame->hd.type == NGHTTP2_RST_STREAM) {
		charge_reset(arg, frame->rst_stream.error_code);
		return 0;
	}
	if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
	    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (s && !s->has_end && (!s->r->is_tunnel || s->r->is_ended))
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
	return 0;
}

/* --- the connection ------------------------------------------------------------------------------
 */

static void on_shutdown(struct loop_timer *timer)
{
	struct http2 *h = container_of(timer, struct http2, shutdown);

	h->is_gone = true;
	nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(h->session), NGHTTP2_NO_ERROR,
			      NULL, 0);
	conn_kick(h->conn);
}

/* In two steps (RFC 9113 6.8), so that a request already on its way is still answered. */
static void leave(struct http2 *h)
{
	if (h->is_leaving)
		return;
	h->is_leaving = true;
	nghttp2_submit_shutdown_notice(h->session);
	loop_timer_start(loop_of(h), &h->shutdown, SHUTDOWN_MS);
}

static bool receive(struct http2 *h)
{
	struct conn *c = h->conn;
	ssize_t n;

	n = feed(h, buf_str(&c->in));
	/* nghttp2's own bound on answers that wait, reached within one read. */
	if (n == NGHTTP2_ERR_FLOODED)
		spend(h, PATIENCE_FULL);
	if (n < 0)
		return false;
	spend(h, COST_FRAME * (int)h->frames);
	h->frames = 0;
	if (h->patience <= 0)
		return false;
	buf_consume(&c->in, (size_t)n);
	return true;
}

static void update_deadline(struct http2 *h)
{
	if (h->has_incoming)
		return; /* set when it began */
	if (h->stream_count)
		conn_clear_deadline(h->conn);
	else if (h->conn->deadline_ms == UINT64_MAX)
		conn_set_deadline(h->conn, client_conf(h)->idle_timeout_ms);
}

/*
 * Behind the client's last byte nothing opens a window and nothing ends a body any more: what waits
 * for that would keep its buffers until the time limit.
 */
static void lose_stuck(struct http2 *h)
{
	list_for_each_safe (node, &h->streams) {
		struct stream *s = container_of(node, struct stream, node);

		if (s->has_end && buf_len(&s->out) == 0)
			continue;
		stream_lost(s);
		stream_reset(s, NGHTTP2_CANCEL);
	}
}

static void http2_on_work(struct conn *c)
{
	struct http2 *h = c->proto_state;
	unsigned reads = 0;

	if (c->worker->is_draining)
		leave(h);
	/* A client that reads nothing is not read from either: its frames would only queue answers.
	 */
	while (!conn_is_congested(c) && (buf_len(&c->in) || conn_fill(c))) {
		if (++reads > READS_PER_ROUND) {
			conn_kick(c);
			break;
		}
		if (!receive(h)) {
			/* What went wrong is in a GOAWAY that nghttp2 has queued. */
			nghttp2_session_send(h->session);
			conn_finish(c);
			return;
		}
	}
	if (c->is_closed)
		return;
	if (nghttp2_session_send(h->session) < 0) {
		conn_close(c);
		return;
	}
	if ((!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session)) ||
	    ((h->is_gone || c->has_eof) && h->stream_count == 0)) {
		conn_finish(c);
		return;
	}
	if (c->has_eof && !nghttp2_session_want_write(h->session))
		lose_stuck(h);
	update_deadline(h);
}

static void http2_on_close(struct conn *c)
{
	struct http2 *h = c->proto_state;

	c->proto_state = NULL;
	while (!list_empty(&h->streams)) {
		struct stream *s = container_of(h->streams.next, struct stream, node);

		stream_lost(s);
		stream_free(s);
	}
	loop_timer_stop(loop_of(h), &h->shutdown);
	nghttp2_session_del(h->session);
	free(h);
}

static void http2_on_deadline(struct conn *c)
{
	struct http2 *h = c->proto_state;

	if (h->has_incoming) {
		conn_close(c);
		return;
	}
	h->is_gone = h->is_leaving = true;
	nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(h->session), NGHTTP2_NO_ERROR,
			      NULL, 0);
	conn_kick(c);
}

/* Our SETTINGS go first, and a ticket with them. */
static bool http2_will_answer(const struct conn *c)
{
	(void)c;
	return false;
}

static const struct conn_proto http2_proto = {
	.on_work = http2_on_work,
	.on_close = http2_on_close,
	.on_deadline = http2_on_deadline,
	.will_answer = http2_will_answer,
};

static nghttp2_session_callbacks *make_callbacks(void)
{
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb))
		return NULL;
	nghttp2_session_callbacks_set_send_callback(cb, on_send);
	nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
	nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	return cb;
}

static nghttp2_option *make_options(const struct http2 *h)
{
	nghttp2_option *o;

	if (nghttp2_option_new(&o))
		return NULL;
	/* The client gets window for what a service took, not for what we received. */
	nghttp2_option_set_no_auto_window_update(o, 1);
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_max_outbound_ack(o, 100);
	nghttp2_option_set_max_settings(o, 32);
	nghttp2_option_set_max_continuations(o,
					     8 + client_conf(h)->max_head_bytes / FRAME_DATA_MAX);
	nghttp2_option_set_stream_reset_rate_limit(o, 200, 50);
	return o;
}

static int session_new(struct http2 *h)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, client_conf(h)->max_head_bytes },
		{ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
	};
	nghttp2_session_callbacks *cb = make_callbacks();
	nghttp2_option *o = make_options(h);
	int rc = cb && o ? nghttp2_session_server_new2(&h->session, cb, h, o) : -1;

	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(o);
	if (rc == 0)
		rc = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
					     ARRAY_SIZE(settings));
	if (rc == 0)
		rc = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
							   CONN_WINDOW);
	return rc;
}

void http2_start(struct conn *c)
{
	struct http2 *h = calloc(1, sizeof(*h));

	if (h) {
		h->conn = c;
		h->patience = PATIENCE_FULL;
		h->frame_skip = PREFACE_LEN;
		h->patience_ms = loop_now_ms(c->worker->loop);
		h->shutdown.on_fire = on_shutdown;
		list_init(&h->streams);
	}
	if (!h || session_new(h)) {
		if (h)
			nghttp2_session_del(h->session);
		free(h);
		conn_close(c);
		return;
	}
	c->proto = &http2_proto;
	c->proto_state = h;
	conn_clear_deadline(c);
}
