/* SPDX-License-Identifier: Apache-2.0 */
/* What limits are made of: rules, the keys they count by, and how verdicts are told to clients. */
#include <stdio.h>

#include "gateway/limits/limits_private.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define MAX_PER_SECOND 1000000ULL
#define MAX_WINDOW_S   (31ULL * 86400)
#define MAX_BURST      1000000000ULL

/* --- rules --------------------------------------------------------------------------------- */

static const char *parse_part(struct limits_part *out, struct str text)
{
	static const struct {
		struct str word;
		enum limits_part_kind kind;
		bool has_name;
	} kinds[] = {
		{ STR("global"), LIMITS_GLOBAL, false },
		{ STR("user"), LIMITS_USER, false },
		{ STR("ip"), LIMITS_IP, false },
		{ STR("endpoint"), LIMITS_ENDPOINT, false },
		{ STR("api_key"), LIMITS_API_KEY, false },
		{ STR("header:"), LIMITS_HEADER, true },
		{ STR("claim:"), LIMITS_CLAIM, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct str name;

		if (kinds[i].has_name ? !str_starts(text, kinds[i].word)
				      : !str_eq(text, kinds[i].word))
			continue;
		name = str_sub(text, kinds[i].word.len, text.len);
		if (kinds[i].kind == LIMITS_HEADER && !http_is_token(name))
			return "must name a header behind \"header:\"";
		if (kinds[i].kind == LIMITS_CLAIM && name.len == 0)
			return "must name a claim behind \"claim:\"";
		*out = (struct limits_part) { .kind = kinds[i].kind, .name = name };
		return NULL;
	}
	return "must be \"user\", \"ip\", \"endpoint\", \"global\", \"api_key\", "
	       "\"header:NAME\", \"claim:NAME\", or several joined by \"+\"";
}

const char *limits_parse_key(struct limits_key_spec *out, struct str text)
{
	struct limits_key_spec spec = { .part_count = 0 };
	struct str part;

	while (str_split(&text, '+', &part)) {
		const char *complaint;

		if (spec.part_count == LIMITS_MAX_PARTS)
			return "must have at most 4 parts";
		complaint = parse_part(&spec.parts[spec.part_count], str_trim(part));
		if (complaint)
			return complaint;
		spec.part_count++;
	}
	*out = spec;
	return NULL;
}

static bool needs_identity(enum limits_part_kind kind)
{
	return kind == LIMITS_USER || kind == LIMITS_CLAIM || kind == LIMITS_API_KEY;
}

const char *limits_rule_init(struct limits_rule *out, struct str name,
			     const struct limits_key_spec *key, uint64_t limit, uint64_t window_s,
			     uint64_t burst)
{
	char shown[65] = "";

	if (name.len)
		memcpy(shown, name.p, MIN(name.len, sizeof(shown) - 1));
	if (burst == 0)
		burst = limit;
	if (limit == 0 || window_s == 0 || window_s > MAX_WINDOW_S)
		return "must have a limit of at least 1 in a window of 1 second to 31 days";
	/* Faster than that, a token's time in nanoseconds is rounded by more than 0.1 %. */
	if (limit / window_s > MAX_PER_SECOND || limit > MAX_PER_SECOND * window_s)
		return "must not exceed 1,000,000 requests per second";
	if (burst > MAX_BURST)
		return "must have a burst of at most 1,000,000,000";
	*out = (struct limits_rule) {
		.name = name,
		.key = *key,
		.limit = limit,
		.burst = burst,
		.window_s = window_s,
		.id = hash_str(name),
		.token_ns = window_s * NSEC_PER_SEC / limit,
	};
	if (__builtin_mul_overflow(out->token_ns, burst, &out->burst_ns) ||
	    out->burst_ns > INT64_MAX / 4)
		return "must have a burst that refills within a century";
	for (size_t i = 0; i < key->part_count; i++) {
		if (needs_identity(key->parts[i].kind))
			out->needs_identity = true;
	}
	snprintf(out->policy, sizeof(out->policy), "\"%.64s\";q=%llu;w=%llu", shown,
		 (unsigned long long)limit, (unsigned long long)window_s);
	return NULL;
}

/* --- keys ---------------------------------------------------------------------------------- */

static uint64_t mix_in(const struct hash_key *key, uint64_t h, enum limits_part_kind kind,
		       struct str bytes)
{
	return hash_mix64((h ^ hash_sip13(key, bytes.p, bytes.len)) +
			  ((uint64_t)kind + 1) * 0x9e3779b97f4a7c15ULL);
}

static struct str address_bytes(const struct net_addr *a)
{
	if (a->sa.sa_family == AF_INET)
		return str_of((const char *)&a->in.sin_addr, 4);
	/* A customer has at least a /64: limits by single address would be no limits. */
	if (a->sa.sa_family == AF_INET6)
		return str_of((const char *)&a->in6.sin6_addr, 8);
	return STR("unix");
}

static const struct claim *identity_part(const struct identity *id, const struct limits_part *part)
{
	switch (part->kind) {
	case LIMITS_USER:
		return id->user;
	case LIMITS_API_KEY:
		return id->key_id;
	default:
		return identity_claim(id, part->name);
	}
}

/* What the part is for this request; false when the request has none. */
static bool part_value(const struct limits_part *part, const struct limits_subject *s,
		       struct str *out)
{
	const struct http_field *field;
	const struct claim *claim;

	switch (part->kind) {
	case LIMITS_GLOBAL:
		*out = STR("");
		return true;
	case LIMITS_ENDPOINT:
		*out = s->endpoint;
		return true;
	case LIMITS_HEADER:
		field = http_find_name(s->fields, s->field_count, part->name);
		if (!field || field->value.len == 0)
			return false;
		*out = field->value;
		return true;
	case LIMITS_USER:
	case LIMITS_CLAIM:
	case LIMITS_API_KEY:
		if (!s->identity)
			return false;
		claim = identity_part(s->identity, part);
		if (!claim)
			return false;
		*out = claim->json; /* the user 1 is not the user "1" */
		return true;
	case LIMITS_IP:
	default:
		return false;
	}
}

static uint64_t hash_parts(const struct hash_key *key, uint64_t h, const struct limits_rule *rule,
			   const struct limits_subject *s)
{
	for (size_t i = 0; i < rule->key.part_count; i++) {
		const struct limits_part *part = &rule->key.parts[i];
		struct str value;

		if (part_value(part, s, &value))
			h = mix_in(key, h, part->kind, value);
		else
			h = mix_in(key, h, LIMITS_IP, address_bytes(s->client));
	}
	return h;
}

uint64_t limits_key(const struct limits_rule *rule, const struct limits_subject *s)
{
	uint64_t h = hash_parts(hash_process_key(), rule->id, rule, s);

	return h ? h : 1;
}

/*
 * The same in all gateways, so without a secret: whoever can choose what is counted could as well
 * send what somebody else sends.
 */
void limits_shared_key(uint64_t out[2], const struct limits_rule *rule,
		       const struct limits_subject *s)
{
	static const struct hash_key keys[2] = {
		{ { 0x6761746568757365ULL, 0x72617465206c696dULL } },
		{ { 0x9e3779b97f4a7c15ULL, 0xbf58476d1ce4e5b9ULL } },
	};

	for (size_t i = 0; i < 2; i++)
		out[i] = hash_parts(&keys[i], hash_sip13(&keys[i], rule->name.p, rule->name.len),
				    rule, s);
}

/* --- fields -------------------------------------------------------------------------------- */

static uint64_t ceil_s(uint64_t ns)
{
	return (ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC;
}

void limits_write_ratelimit(const struct limits_verdict *v, struct buf *out)
{
	buf_putc(out, '"');
	buf_add(out, str_sub(v->rule->name, 0, MIN(v->rule->name.len, (size_t)64)));
	buf_addz(out, "\";r=");
	buf_u64(out, v->remaining);
	buf_addz(out, ";t=");
	buf_u64(out, ceil_s(v->reset_ns));
}

uint64_t limits_retry_after_s(const struct limits_verdict *v)
{
	return MAX(ceil_s(v->retry_after_ns), (uint64_t)1);
}
