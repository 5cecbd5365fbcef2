/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/api_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/base64.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/json.h"

#define HASH_WORD "sha256:"

struct api_key {
	struct hmap_node node;
	unsigned char hash[API_KEY_HASH_LEN];
	int64_t from_s, until_s; /* INT64_MIN, INT64_MAX: no bound */
	bool is_disabled;
	struct identity *identity;
};

struct api_keys {
	unsigned refs;
	uint64_t fingerprint;
	struct hmap by_hash; /* by the beginning of the hash */
	size_t count;
	struct api_key list[];
};

const char *api_key_result_text(enum api_key_result r)
{
	static const char *const texts[] = {
		[API_KEY_OK] = "the API key is valid",
		[API_KEY_UNKNOWN] = "the API key is not known",
		[API_KEY_EXPIRED] = "the API key has expired",
		[API_KEY_NOT_YET_VALID] = "the API key is not valid yet",
		[API_KEY_DISABLED] = "the API key is disabled",
	};

	return texts[r];
}

void api_key_hash_text(char out[static API_KEY_HASH_TEXT], struct str key)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	size_t len = sizeof(HASH_WORD) - 1;

	SHA256((const unsigned char *)key.p, key.len, hash);
	memcpy(out, HASH_WORD, len);
	len += base64url_encode(out + len, hash, sizeof(hash));
	out[len] = '\0';
}

/* --- reading ------------------------------------------------------------------------------- */

/* A key being read, with the words for what is wrong with it. */
struct entry {
	const json_t *json;
	struct api_key *key;
	const char *problem;
};

static bool wrong(struct entry *e, const char *problem)
{
	e->problem = problem;
	return false;
}

static struct str text_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return json_is_string(value) ? str_of(json_string_value(value), json_string_length(value))
				     : (struct str) { 0 };
}

static bool read_hash(struct entry *e)
{
	struct str text = text_of(e->json, "hash");
	unsigned char bytes[BASE64URL_DECODED_MAX(64)];

	if (!str_starts(text, STR(HASH_WORD)))
		return wrong(e, "\"hash\" must begin with \"sha256:\"");
	text = str_sub(text, sizeof(HASH_WORD) - 1, text.len);
	if (text.len > 64 || base64url_decode(bytes, text) != API_KEY_HASH_LEN)
		return wrong(e, "\"hash\" must be the base64url of 32 bytes behind \"sha256:\"");
	memcpy(e->key->hash, bytes, API_KEY_HASH_LEN);
	return true;
}

static bool read_date(struct entry *e, const char *name, int64_t *out)
{
	const json_t *value = json_object_get(e->json, name);
	uint64_t ms;

	if (!value || json_is_null(value))
		return true;
	if (!json_is_string(value) || clock_parse_rfc3339(json_string_value(value), &ms) < 0)
		return false;
	*out = (int64_t)(ms / MSEC_PER_SEC);
	return true;
}

/* The claims of the file, and those that every key has. */
static bool write_claims(struct entry *e, struct json_writer *w)
{
	json_t *claims = json_object_get(e->json, "claims");
	json_t *scopes = json_object_get(e->json, "scopes"), *value;
	const char *name;
	size_t i;

	if ((claims && !json_is_object(claims)) || (scopes && !json_is_array(scopes)))
		return wrong(e, "\"claims\" must be an object, and \"scopes\" a list");
	json_open(w, NULL, '{');
	json_add_str(w, "sub", text_of(e->json, "user"));
	json_add_str(w, "api_key_id", text_of(e->json, "id"));
	json_object_foreach (claims, name, value) {
		char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

		if (strcmp(name, "sub") == 0 || strcmp(name, "api_key_id") == 0 ||
		    (strcmp(name, "scope") == 0 && scopes)) {
			free(text);
			return wrong(e, "\"claims\" must not have \"sub\", \"api_key_id\" or "
					"\"scope\": they come from the other members");
		}
		json_add_raw(w, name, str_from(text ? text : "null"));
		free(text);
	}
	if (scopes) {
		struct buf words;

		buf_init(&words, 8192);
		json_array_foreach (scopes, i, value) {
			const char *word = json_string_value(value);

			if (!word || !*word || strchr(word, ' ')) {
				buf_fini(&words);
				return wrong(e, "\"scopes\" must hold words without white space");
			}
			buf_printf(&words, "%s%s", i ? " " : "", word);
		}
		json_add_str(w, "scope", buf_str(&words));
		buf_fini(&words);
	}
	json_close(w, '}');
	return true;
}

static bool read_identity(struct entry *e, struct str user_claim)
{
	struct json_writer w;
	struct buf text;
	bool ok;

	buf_init(&text, 65536);
	w = json_writer(&text);
	ok = write_claims(e, &w);
	if (ok && !buf_failed(&text))
		e->key->identity = identity_new(buf_str(&text), user_claim, e->key->until_s);
	buf_fini(&text);
	if (!ok)
		return false;
	if (!e->key->identity)
		return wrong(e, "its claims are too large or too deep");
	if (!e->key->identity->user || e->key->identity->user->text.len == 0 ||
	    !claim_is_safe(e->key->identity->user))
		return wrong(e, "\"user\" (or the user_claim) is missing or unfit for a header");
	e->key->identity->key_id = identity_claim(e->key->identity, STR("api_key_id"));
	return claim_is_safe(e->key->identity->key_id) || wrong(e, "\"id\" is unfit for a log");
}

/* A misspelt "expires" must not be a key without end. */
static bool knows_all_members(struct entry *e)
{
	static const char *const known[] = { "id",      "hash",     "user",
					     "scopes",  "claims",   "not_before",
					     "expires", "disabled", "//" };
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)e->json, name, value) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(known[i], name) != 0)
			i++;
		if (i == ARRAY_SIZE(known))
			return wrong(e, "has a member that is none of id, hash, user, scopes, "
					"claims, not_before, expires, disabled");
	}
	return true;
}

static bool read_key(struct entry *e, struct str user_claim)
{
	const json_t *disabled = json_object_get(e->json, "disabled");
	struct str id = text_of(e->json, "id"), user = text_of(e->json, "user");

	*e->key = (struct api_key) { .from_s = INT64_MIN, .until_s = INT64_MAX };
	if (!json_is_object(e->json))
		return wrong(e, "is not an object");
	if (id.len == 0 || id.len > 128)
		return wrong(e, "\"id\" is missing, or longer than 128 bytes");
	if (user.len == 0)
		return wrong(e, "\"user\" is missing");
	if (disabled && !json_is_boolean(disabled))
		return wrong(e, "\"disabled\" must be true or false");
	e->key->is_disabled = json_is_true(disabled);
	if (!read_date(e, "not_before", &e->key->from_s) ||
	    !read_date(e, "expires", &e->key->until_s))
		return wrong(e, "\"not_before\" and \"expires\" must be dates such as "
				"\"2027-01-01T00:00:00Z\"");
	return knows_all_members(e) && read_hash(e) && read_identity(e, user_claim);
}

static uint64_t place_of(const unsigned char hash[API_KEY_HASH_LEN])
{
	uint64_t place;

	memcpy(&place, hash, sizeof(place));
	return place;
}

static struct api_key *find(const struct api_keys *keys, const unsigned char *hash)
{
	for (struct hmap_node *n = hmap_first(&keys->by_hash, place_of(hash)); n;
	     n = hmap_next(n)) {
		struct api_key *key = container_of(n, struct api_key, node);

		if (CRYPTO_memcmp(key->hash, hash, API_KEY_HASH_LEN) == 0)
			return key;
	}
	return NULL;
}

static int entry_error(struct err *err, const struct entry *e, size_t index)
{
	struct str id = text_of(e->json, "id");

	return err_set(err, -EINVAL, "keys[%zu]%s%.*s%s: %s", index, id.len ? " (id \"" : "",
		       (int)MIN(id.len, (size_t)100), id.p ? id.p : "", id.len ? "\")" : "",
		       e->problem);
}

static int read_list(struct api_keys *keys, const json_t *list, struct str user_claim,
		     struct err *err)
{
	const json_t *json;
	size_t i;

	json_array_foreach (list, i, json) {
		struct entry e = { .json = json, .key = &keys->list[keys->count] };

		if (!read_key(&e, user_claim)) {
			identity_put(&e.key->identity);
			return entry_error(err, &e, i);
		}
		keys->count++;
		if (find(keys, e.key->hash)) {
			e.problem = "is there already, under another id";
			return entry_error(err, &e, i);
		}
		if (hmap_insert(&keys->by_hash, &e.key->node, place_of(e.key->hash)) < 0)
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* One id, one key: logs and limits tell them apart by it. */
static int check_ids(const struct api_keys *keys, struct err *err)
{
	json_t *seen = json_object();
	int rc = seen ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; rc == 0 && i < keys->count; i++) {
		struct str id = keys->list[i].identity->key_id->text;

		if (json_object_getn(seen, id.p, id.len))
			rc = err_set(err, -EINVAL, "keys[%zu]: the id \"%.*s\" is there already", i,
				     STR_ARG(id));
		else
			json_object_setn_new_nocheck(seen, id.p, id.len, json_true());
	}
	json_decref(seen);
	return rc;
}

int api_keys_parse(struct api_keys **out, struct str json, struct str user_claim, struct err *err)
{
	json_error_t syntax;
	json_t *root = json_loadb(json.p ? json.p : "", json.len, JSON_REJECT_DUPLICATES, &syntax);
	const json_t *list = json_object_get(root, "keys");
	struct api_keys *keys = NULL;
	int rc;

	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", syntax.line, syntax.column,
			       syntax.text);
	if (!json_is_array(list))
		rc = err_set(err, -EINVAL, "holds no list \"keys\"");
	else if (json_array_size(list) > API_KEYS_MAX)
		rc = err_set(err, -EINVAL, "holds more than %d keys", API_KEYS_MAX);
	else if (!(keys = calloc(1, sizeof(*keys) +
					    (json_array_size(list) + 1) * sizeof(keys->list[0]))))
		rc = err_set(err, -ENOMEM, "out of memory");
	else
		rc = 0;
	if (keys) {
		keys->refs = 1;
		keys->fingerprint = hash_str(json);
		rc = read_list(keys, list, user_claim, err);
		if (rc == 0)
			rc = check_ids(keys, err);
	}
	json_decref(root);
	if (rc < 0)
		api_keys_put(&keys);
	else
		*out = keys;
	return rc;
}

int api_keys_load_file(struct api_keys **out, const char *file, struct str user_claim,
		       struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(file, O_RDONLY | O_CLOEXEC);
	CLEANUP(buf_fini) struct buf text;
	struct err inner;
	ssize_t n;
	int rc;

	buf_init(&text, API_KEYS_MAX_BYTES);
	if (fd < 0)
		return err_set(err, -EINVAL, "cannot read %s: %s", file, strerror(errno));
	do {
		char *room = buf_reserve(&text, 65536);

		if (!room)
			return err_set(err, -EINVAL, "%s: is larger than %u MiB", file,
				       API_KEYS_MAX_BYTES >> 20);
		n = read(fd, room, 65536);
		buf_commit(&text, n > 0 ? (size_t)n : 0);
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0)
		return err_set(err, -EINVAL, "cannot read %s: %s", file, strerror(errno));
	rc = api_keys_parse(out, buf_str(&text), user_claim, &inner);
	return rc < 0 ? err_set(err, rc, "%s: %.400s", file, inner.text) : 0;
}

struct api_keys *api_keys_ref(struct api_keys *keys)
{
	__atomic_fetch_add(&keys->refs, 1, __ATOMIC_RELAXED);
	return keys;
}

void api_keys_put(struct api_keys **kp)
{
	struct api_keys *keys = *kp;

	*kp = NULL;
	if (!keys || __atomic_fetch_sub(&keys->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	for (size_t i = 0; i < keys->count; i++)
		identity_put(&keys->list[i].identity);
	hmap_fini(&keys->by_hash);
	free(keys);
}

size_t api_keys_count(const struct api_keys *keys)
{
	return keys->count;
}

uint64_t api_keys_fingerprint(const struct api_keys *keys)
{
	return keys->fingerprint;
}

/* --- use ----------------------------------------------------------------------------------- */

/*
 * Found by the hash of what was sent, so how long it takes says nothing about the keys there are:
 * whoever tries does not choose the hash.
 */
enum api_key_result api_keys_check(const struct api_keys *keys, struct str key, int64_t now_s,
				   struct identity **out)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	const struct api_key *found;

	if (key.len == 0 || key.len > API_KEY_MAX)
		return API_KEY_UNKNOWN;
	SHA256((const unsigned char *)key.p, key.len, hash);
	found = find(keys, hash);
	if (!found)
		return API_KEY_UNKNOWN;
	if (found->is_disabled)
		return API_KEY_DISABLED;
	if (now_s >= found->until_s)
		return API_KEY_EXPIRED;
	if (now_s < found->from_s)
		return API_KEY_NOT_YET_VALID;
	*out = identity_ref(found->identity);
	return API_KEY_OK;
}
