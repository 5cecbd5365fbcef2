/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a request may become a WebSocket: only on routes that say so, only with the handshake of
 * RFC 6455 4.2.1. Any other protocol that a client would like to switch to is not for us and is
 * ignored, as RFC 9110 7.8 lets a server do: the request goes on as what it is.
 */
#include <openssl/evp.h>

#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "lib/hash.h"

#define KEY_LEN    24 /* base64 of 16 bytes */
#define ACCEPT_LEN 28 /* base64 of a SHA-1 */

/* What the service must answer to this key, RFC 6455 1.3. */
static struct str accept_for(struct request *r, struct str key)
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char text[KEY_LEN + sizeof(guid) - 1], digest[EVP_MAX_MD_SIZE];
	unsigned char *accept = arena_alloc(&r->arena, ACCEPT_LEN + 1);

	memcpy(text, key.p, KEY_LEN);
	memcpy(text + KEY_LEN, guid, sizeof(guid) - 1);
	if (!accept || !EVP_Digest(text, sizeof(text), digest, NULL, EVP_sha1(), NULL))
		return (struct str) { 0 };
	EVP_EncodeBlock(accept, digest, 20);
	return str_of((char *)accept, ACCEPT_LEN);
}

static bool is_key(struct str key)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	if (key.len != KEY_LEN || key.p[KEY_LEN - 1] != '=' || key.p[KEY_LEN - 2] != '=')
		return false;
	for (size_t i = 0; i < KEY_LEN - 2; i++) {
		if (!memchr(alphabet, key.p[i], sizeof(alphabet) - 1))
			return false;
	}
	return true;
}

/* The only field of that name; NULL when there is none or a second one. */
static const struct http_field *find_single(const struct headers *h, struct str name)
{
	const struct http_field *found = NULL;

	for (size_t i = 0; i < h->count; i++) {
		if (!str_ieq(h->fields[i].name, name))
			continue;
		if (found)
			return NULL;
		found = &h->fields[i];
	}
	return found;
}

/* HTTP/2 has no key (RFC 8441 5), the service's HTTP/1.1 wants one. */
static struct str make_key(struct request *r)
{
	unsigned char bytes[16];
	unsigned char *key = arena_alloc(&r->arena, KEY_LEN + 1);
	struct headers *h = &r->headers;
	size_t kept = 0;

	if (!key)
		return (struct str) { 0 };
	random_bytes(bytes, sizeof(bytes));
	EVP_EncodeBlock(key, bytes, sizeof(bytes));
	for (size_t i = 0; i < h->count; i++) {
		if (!str_ieq(h->fields[i].name, STR("Sec-WebSocket-Key")))
			h->fields[kept++] = h->fields[i];
	}
	h->count = kept;
	if (!headers_add(h, STR("Sec-WebSocket-Key"), str_of((char *)key, KEY_LEN)))
		return (struct str) { 0 };
	return str_of((char *)key, KEY_LEN);
}

static enum stage_result refuse(struct request *r, unsigned status, const char *detail)
{
	problem_send(r, status, REASON_BAD_REQUEST, detail);
	return STAGE_RESPONDED;
}

enum stage_result stage_upgrade(struct request *r)
{
	const struct http_field *version, *key;
	struct str text;

	if (!r->upgrade.p)
		return STAGE_NEXT;
	if (!http_list_has(r->upgrade, STR("websocket")) || !r->route->conf->websocket)
		/* A CONNECT cannot go on as anything else. */
		return r->is_connect ? refuse(r, 501, "this protocol is not served here")
				     : STAGE_NEXT;
	if (r->method_id != METHOD_GET || r->has_body || r->has_length)
		return refuse(r, 400, "a WebSocket begins with a GET without a body");
	version = find_single(&r->headers, STR("Sec-WebSocket-Version"));
	if (!version || !str_eq(version->value, STR("13"))) {
		request_add_extra(r, STR("Sec-WebSocket-Version"), STR("13"));
		return refuse(r, 426, "WebSocket is spoken in version 13 only");
	}
	if (r->is_connect) {
		text = make_key(r);
	} else {
		key = find_single(&r->headers, STR("Sec-WebSocket-Key"));
		if (!key || !is_key(key->value))
			return refuse(r, 400, "no valid Sec-WebSocket-Key");
		text = key->value;
	}
	if (text.p)
		r->websocket_accept = accept_for(r, text);
	if (!r->websocket_accept.p)
		return refuse(r, 503, "out of memory");
	return STAGE_NEXT;
}
