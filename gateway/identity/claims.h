/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a JSON object (RFC 8259) of claims strictly, in one pass and without a tree: repeated
 * members, bad UTF-8, NUL, deep nesting and anything behind the object are refused. Members of
 * nested objects are found by their path ("realm_access.roles").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"

#define CLAIMS_MAX_BYTES 8192 /* of the text */
#define CLAIMS_MAX       256  /* members in all, nested ones and those within lists too */
#define CLAIMS_MAX_DEPTH 16

enum claim_kind {
	CLAIM_STRING,
	CLAIM_NUMBER,
	CLAIM_BOOL,
	CLAIM_LIST, /* of strings, at least one */
	CLAIM_OTHER,
	CLAIM_NULL, /* for those who must know that it is there; never found by claims_find */
};

struct claim {
	struct str name;
	enum claim_kind kind;
	int parent; /* index of the object that it is in; -1: the outermost */
	/* For people and headers: the string without quotes, the number as it was written, "true",
	 * the list's strings joined by ",", else JSON. Not yet fit for a header: see claim_is_safe.
	 */
	struct str text;
	struct str json; /* as typed, without white space: "\"u1\"", "42", "[\"a\"]" */
};

/* What was read. */
struct claims {
	const struct claim *list; /* an object stands before its members */
	size_t count;
	struct str json, extra; /* the two blocks of bytes that the list's texts lie in */
};

/* 0, or -EINVAL, *out then being empty. The list lives until the next call in this thread. */
int claims_parse(struct claims *out, struct str text);

/* By name, else by path, the names joined by "."; NULL: not there, or null. */
const struct claim *claims_find(const struct claim *list, size_t count, struct str name);

/* No control bytes, no space at either end: may be sent as a header field value. */
bool claim_is_safe(const struct claim *claim);

/*
 * Takes the next item off *rest, which begins as the json of a list: its decoded string, else its
 * JSON. Strings with escapes are decoded into `room` of CLAIMS_MAX_BYTES. False at the end.
 */
bool claims_next_item(struct str *rest, struct str *item, bool *is_string, char *room);
