/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity.h"

#include <stdlib.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

/* Where a claim's texts lie in the block of bytes that is being gathered. */
struct span {
	size_t at, len;
};

struct gathered {
	struct span name, text, json;
	enum claim_kind kind;
};

static bool is_list_of_strings(const json_t *value)
{
	size_t i;
	const json_t *item;

	if (!json_is_array(value) || json_array_size(value) == 0)
		return false;
	json_array_foreach (value, i, item) {
		if (!json_is_string(item))
			return false;
	}
	return true;
}

static struct span put(struct buf *bytes, const char *p, size_t len)
{
	struct span span = { buf_len(bytes), len };

	buf_append(bytes, p, len);
	return span;
}

static bool put_json(struct buf *bytes, const json_t *value, struct span *out)
{
	char *json = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	if (!json)
		return false;
	*out = put(bytes, json, strlen(json));
	free(json);
	return true;
}

static struct span put_list(struct buf *bytes, const json_t *list)
{
	struct span span = { buf_len(bytes), 0 };
	size_t i;
	const json_t *item;

	json_array_foreach (list, i, item) {
		if (i)
			buf_putc(bytes, ',');
		buf_append(bytes, json_string_value(item), json_string_length(item));
	}
	span.len = buf_len(bytes) - span.at;
	return span;
}

static bool gather(struct buf *bytes, struct gathered *g, struct str name, const json_t *value)
{
	g->name = put(bytes, name.p, name.len);
	if (!put_json(bytes, value, &g->json))
		return false;
	g->text = g->json;
	if (json_is_string(value)) {
		g->kind = CLAIM_STRING;
		g->text = put(bytes, json_string_value(value), json_string_length(value));
	} else if (json_is_number(value)) {
		g->kind = CLAIM_NUMBER;
	} else if (json_is_boolean(value)) {
		g->kind = CLAIM_BOOL;
	} else if (is_list_of_strings(value)) {
		g->kind = CLAIM_LIST;
		g->text = put_list(bytes, value);
	} else {
		g->kind = CLAIM_OTHER;
	}
	return true;
}

static struct identity *assemble(const struct gathered *g, size_t count, const struct buf *bytes)
{
	size_t head = sizeof(struct identity) + count * sizeof(struct claim);
	struct identity *id = malloc(head + buf_len(bytes));
	char *base;

	if (!id)
		return NULL;
	*id = (struct identity) {
		.refs = 1,
		.claim_count = count,
		.size = head + buf_len(bytes),
	};
	base = (char *)id + head;
	if (buf_len(bytes))
		memcpy(base, buf_data(bytes), buf_len(bytes));
	for (size_t i = 0; i < count; i++) {
		id->claims[i] = (struct claim) {
			.name = str_of(base + g[i].name.at, g[i].name.len),
			.kind = g[i].kind,
			.text = str_of(base + g[i].text.at, g[i].text.len),
			.json = str_of(base + g[i].json.at, g[i].json.len),
		};
	}
	return id;
}

struct identity *identity_new(const json_t *claims, struct str user_claim, int64_t expires_s)
{
	size_t room = json_object_size(claims), count = 0;
	CLEANUP(cleanup_free) struct gathered *g = calloc(room + 1, sizeof(*g));
	CLEANUP(buf_fini) struct buf bytes;
	struct identity *id;

	buf_init(&bytes, 1U << 20);
	if (!g)
		return NULL;
	/* jansson's iterators take no const. */
	for (void *it = json_object_iter((json_t *)(uintptr_t)claims); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)claims, it)) {
		struct str name = str_of(json_object_iter_key(it), json_object_iter_key_len(it));

		if (json_is_null(json_object_iter_value(it)))
			continue;
		if (!gather(&bytes, &g[count++], name, json_object_iter_value(it)))
			return NULL;
	}
	if (buf_failed(&bytes))
		return NULL;
	id = assemble(g, count, &bytes);
	if (!id)
		return NULL;
	id->expires_s = expires_s;
	id->user = identity_claim(id, user_claim);
	return id;
}

struct identity *identity_ref(struct identity *id)
{
	__atomic_fetch_add(&id->refs, 1, __ATOMIC_RELAXED);
	return id;
}

void identity_put(struct identity **id)
{
	if (*id && __atomic_fetch_sub(&(*id)->refs, 1, __ATOMIC_ACQ_REL) == 1)
		free(*id);
	*id = NULL;
}

const struct claim *identity_claim(const struct identity *id, struct str name)
{
	for (size_t i = 0; i < id->claim_count; i++) {
		if (str_eq(id->claims[i].name, name))
			return &id->claims[i];
	}
	return NULL;
}

/* Looks in the JSON text, not in the joined one: an item may hold a comma. */
static bool list_has(struct str json, struct str word)
{
	json_t *list = json_loadb(json.p, json.len, 0, NULL);
	bool has = false;
	size_t i;
	const json_t *item;

	json_array_foreach (list, i, item)
		has = has ||
		      str_eq(str_of(json_string_value(item), json_string_length(item)), word);
	json_decref(list);
	return has;
}

bool identity_claim_has(const struct identity *id, struct str name, struct str word)
{
	const struct claim *claim = identity_claim(id, name);
	struct str rest, item;

	if (!claim)
		return false;
	if (claim->kind == CLAIM_LIST)
		return list_has(claim->json, word);
	if (claim->kind != CLAIM_STRING)
		return claim->kind != CLAIM_OTHER && str_eq(claim->text, word);
	if (str_eq(claim->text, word))
		return true;
	rest = claim->text;
	while (str_split(&rest, ' ', &item)) {
		if (item.len && str_eq(item, word))
			return true;
	}
	return false;
}

bool claim_is_safe(const struct claim *claim)
{
	struct str text = claim->text;

	/* Whoever reads the header trims it (RFC 9110 5.5): " a" would become the user "a". */
	if (text.len && (text.p[0] == ' ' || text.p[text.len - 1] == ' '))
		return false;
	for (size_t i = 0; i < claim->text.len; i++) {
		unsigned char c = (unsigned char)claim->text.p[i];

		if (c < 0x20 || c == 0x7f)
			return false;
	}
	return true;
}
