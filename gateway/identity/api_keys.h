/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys: a file with the SHA-256 of each and with whom it stands for. Keys are 256 random bits,
 * so nothing can be learnt from a hash, and no salt or slow hash is needed against guessing.
 * Immutable and reference-counted.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/identity.h"
#include "lib/err.h"
#include "lib/str.h"

#define API_KEYS_MAX_BYTES (64U << 20)
#define API_KEYS_MAX       200000
#define API_KEY_MAX        256 /* bytes of a key as it is sent */
#define API_KEY_HASH_LEN   32
#define API_KEY_PREFIX     "ghk_"

struct api_keys;

enum api_key_result {
	API_KEY_OK,
	API_KEY_UNKNOWN,
	API_KEY_EXPIRED,
	API_KEY_NOT_YET_VALID,
	API_KEY_DISABLED,
};

/*
 * Reads {"keys": [{"id", "hash": "sha256:…", "user", "scopes": […], "claims": {…}, "not_before",
 * "expires", "disabled"}]}. `user_claim` names the claim that is the user. -EINVAL, -ENOMEM with
 * the sentence in err.
 */
int api_keys_parse(struct api_keys **out, struct str json, struct str user_claim, struct err *err);
int api_keys_load_file(struct api_keys **out, const char *file, struct str user_claim,
		       struct err *err);
struct api_keys *api_keys_ref(struct api_keys *keys);
void api_keys_put(struct api_keys **keys);

size_t api_keys_count(const struct api_keys *keys);
uint64_t api_keys_fingerprint(const struct api_keys *keys);

/* Any thread. On API_KEY_OK *out is the identity with a reference for the caller; its claims are
 * those of the file, "sub" (the user), "scope" and "api_key_id". */
enum api_key_result api_keys_check(const struct api_keys *keys, struct str key, int64_t now_s,
				   struct identity **out);
/* "the key has expired": a constant, nothing secret. */
const char *api_key_result_text(enum api_key_result r);

/* The text that the file has for a key: "sha256:" and base64url. */
#define API_KEY_HASH_TEXT 64
void api_key_hash_text(char out[static API_KEY_HASH_TEXT], struct str key);
