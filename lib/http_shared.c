/* SPDX-License-Identifier: Apache-2.0 */
/* What waits to be sent: the connection's own bytes, and bodies that many answers share. */
#include <assert.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/http_server_impl.h"

/* --- the bound on all of it --------------------------------------------------------------------
 */

bool http_server_has_room(const struct http_server *s, size_t more)
{
	return s->queued + more <= s->config.max_queued;
}

void http_conn_charge(struct http_conn *c)
{
	c->server->queued += c->out.cap - c->charged;
	c->charged = c->out.cap;
}

/* --- shared bodies ------------------------------------------------------------------------------
 */

struct http_shared *http_shared_new(struct http_request *req, struct str bytes)
{
	struct http_server *s = container_of(req, struct pending, req)->conn->server;
	struct http_shared *shared;

	if (!http_server_has_room(s, bytes.len))
		return NULL;
	shared = malloc(sizeof(*shared) + bytes.len);
	if (!shared)
		return NULL;
	*shared = (struct http_shared) { .server = s, .refs = 1, .len = bytes.len };
	memcpy(shared->bytes, bytes.p, bytes.len);
	s->queued += bytes.len;
	return shared;
}

void http_shared_put(struct http_shared **sp)
{
	struct http_shared *shared = TAKE_PTR(*sp);

	if (!shared || --shared->refs)
		return;
	shared->server->queued -= shared->len;
	free(shared);
}

/* --- one connection ------------------------------------------------------------------------------
 */

void http_conn_add_shared(struct http_conn *c, struct http_shared *shared)
{
	assert(!c->tail);
	shared->refs++;
	c->tail = shared;
	c->tail_at = 0;
	c->tail_after = buf_len(&c->out);
}

size_t http_conn_unsent(const struct http_conn *c)
{
	return buf_len(&c->out) + (c->tail ? c->tail->len - c->tail_at : 0);
}

struct str http_conn_next_out(const struct http_conn *c)
{
	if (!c->tail)
		return buf_str(&c->out);
	if (c->tail_after)
		return str_of(buf_data(&c->out), c->tail_after);
	return str_of(c->tail->bytes + c->tail_at, c->tail->len - c->tail_at);
}

void http_conn_sent(struct http_conn *c, size_t n)
{
	if (c->tail && !c->tail_after) {
		c->tail_at += n;
		if (c->tail_at == c->tail->len)
			http_shared_put(&c->tail);
		return;
	}
	buf_consume(&c->out, n);
	if (c->tail)
		c->tail_after -= n;
}
