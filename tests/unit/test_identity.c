/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/identity/api_keys.h"
#include "gateway/identity/auth_keys.h"
#include "gateway/identity/names.h"
#include "gateway/identity/revoked.h"
#include "lib/cleanup.h"
#include "lib/url.h"
#include "tests/unit/unit.h"

#define NOW 1800000000LL

static void names_fit_patterns(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool fits;
	} cases[] = {
		{ "uri:spiffe://x/ns/*", "uri:spiffe://x/ns/prod/sa/web", true },
		{ "uri:spiffe://x/ns/*", "uri:spiffe://x/ns/", false },
		{ "uri:spiffe://x/ns/*", "uri:spiffe://x/nsa/b", false },
		{ "uri:spiffe://x/*/web", "uri:spiffe://x/prod/web", true },
		{ "uri:spiffe://x/*/web", "uri:spiffe://x/prod/eu/web", false },
		{ "uri:spiffe://x/a", "uri:spiffe://x/A", false },
		{ "uri:spiffe://x/a", "dns:spiffe://x/a", false },
		{ "dns:*.example.com", "dns:A.Example.COM", true },
		{ "dns:*.example.com", "dns:a.b.example.com", false },
		{ "dns:*.example.com", "dns:.example.com", false },
		{ "dns:*.example.com", "dns:example.com", false },
		{ "dns:*.example.com", "dns:a.example.com.evil.org", false },
		{ "dns:web-*.*.example.com", "dns:web-1.eu.example.com", true },
		{ "email:*@example.com", "email:bob@example.com", true },
		{ "email:*@example.com", "email:bob@evil.org@example.com", false },
		{ "cn:*", "cn:any thing/at.all", true },
		{ "cn:bob", "cn:bobby", false },
		{ "cn:bob", "cn:bo", false },
	};
	static const struct str patterns[] = { STR("dns:b.*"), STR("cn:*") };
	struct buf out;

	for (size_t i = 0; i < CASES(cases); i++) {
		if (names_fit(str_from(cases[i].pattern), str_from(cases[i].name)) != cases[i].fits)
			fail_msg("%s %s", cases[i].pattern, cases[i].name);
	}
	/* By the order of the patterns, not of the names. */
	assert_true(str_eqz(names_find(STR("cn:c\ndns:a.x\ndns:b.x\n"), patterns, 2), "b.x"));
	assert_true(str_eqz(names_find(STR("cn:c\ndns:a.x\n"), patterns, 2), "c"));
	assert_null(names_find(STR("dns:a.x\n"), patterns, 2).p);
	buf_init(&out, 0);
	names_write_claims(STR("uri:u\ncn:\"q\"\ndns:a\ndns:b\n"), STR("u"), &out);
	assert_true(str_eqz(buf_str(&out), "{\"sub\":\"u\",\"uri\":[\"u\"],\"dns\":[\"a\",\"b\"],"
					   "\"email\":[],\"cn\":[\"\\\"q\\\"\"]}"));
	buf_fini(&out);
	assert_null(names_check_pattern(STR("cn:*")));
	assert_non_null(names_check_pattern(STR("cn:")));
	assert_non_null(names_check_pattern(STR("ip:1.2.3.4")));
	assert_non_null(names_check_pattern(STR("cn:*a*b*")));
}

static void urls_are_cut_into_parts(void **state)
{
	static const struct {
		const char *text, *host, *path, *query;
		unsigned port;
		bool is_https;
	} good[] = {
		{ "https://id.example.com", "id.example.com", "/", "", 443, true },
		{ "HTTP://h:8080/a/b?x=1&y=/2", "h", "/a/b", "?x=1&y=/2", 8080, false },
		{ "https://[2001:db8::1]:8443/k", "2001:db8::1", "/k", "", 8443, true },
		{ "http://[::1]?q", "::1", "/", "?q", 80, false },
	};
	static const char *const bad[] = {
		"",
		"id.example.com",
		"ftp://x/",
		"https://",
		"https:///x",
		"http://:80/",
		"http://u@h/",
		"http://h:0/",
		"http://h:65536/",
		"http://h:x/",
		"http://h/a b",
		"http://h/#f",
		"http://h/\x7f",
		"http://[::1",
		"http://h:80:90/",
	};
	struct url url;

	for (size_t i = 0; i < CASES(good); i++) {
		assert_null(url_parse(&url, str_from(good[i].text)));
		assert_true(str_eqz(url.host, good[i].host) && str_eqz(url.path, good[i].path) &&
			    str_eqz(url.query, good[i].query));
		assert_int_equal(url.port, good[i].port);
		assert_int_equal(url.is_https, good[i].is_https);
	}
	for (size_t i = 0; i < CASES(bad); i++) {
		if (!url_parse(&url, str_from(bad[i])))
			fail_msg("%s", bad[i]);
	}
}

static struct revocation revocation(enum revoked_kind kind, const char *value)
{
	return (struct revocation) {
		.kind = kind,
		.source = REVOKED_BY_ADMIN,
		.value = str_from(value),
		.before_s = INT64_MAX,
		.until_s = INT64_MAX,
	};
}

static void revocations_say_whom_they_mean(void **state)
{
	struct identity *id = identity_new(STR("{\"jti\":\"t\",\"sub\":\"s\"}"), STR("sub"), NOW);
	struct revoked *t = revoked_new();
	struct revocation r = revocation(REVOKED_JTI, "t");

	id->issued_s = NOW - 100;
	assert_false(revoked_has(t, id, STR("a"), NOW));
	assert_int_equal(revoked_add(t, &r), 0);
	assert_int_equal(revoked_add(t, &r), 0); /* the same one */
	assert_int_equal(revoked_count(t, REVOKED_BY_ADMIN), 1);
	assert_true(revoked_has(t, id, STR("a"), NOW));
	assert_true(revoked_remove(t, &r));
	assert_false(revoked_remove(t, &r));
	assert_false(revoked_has(t, id, STR("a"), NOW));
	/* Another kind of the same text, another auth. */
	r = revocation(REVOKED_SUB, "t");
	revoked_add(t, &r);
	r = revocation(REVOKED_API_KEY, "s");
	revoked_add(t, &r);
	r = revocation(REVOKED_SUB, "s");
	r.auth = STR("b");
	revoked_add(t, &r);
	assert_false(revoked_has(t, id, STR("a"), NOW));
	assert_true(revoked_has(t, id, STR("b"), NOW));
	/* Issued before, and unknown when. */
	r = revocation(REVOKED_SUB, "s");
	r.before_s = NOW - 100;
	revoked_add(t, &r);
	assert_false(revoked_has(t, id, STR("a"), NOW));
	id->issued_s = NOW - 101;
	assert_true(revoked_has(t, id, STR("a"), NOW));
	id->issued_s = INT64_MIN;
	assert_true(revoked_has(t, id, STR("a"), NOW));
	/* Until then. */
	r.before_s = INT64_MAX;
	r.until_s = NOW + 10;
	revoked_add(t, &r);
	assert_true(revoked_has(t, id, STR("a"), NOW + 9));
	assert_false(revoked_has(t, id, STR("a"), NOW + 10));
	revoked_expire(t, NOW + 10);
	assert_int_equal(revoked_count(t, REVOKED_BY_ADMIN), 3);
	/* A source's next version: what is not of it goes, others stay. */
	r = revocation(REVOKED_JTI, "t");
	r.source = REVOKED_BY_FILE;
	r.round = 1;
	revoked_add(t, &r);
	revoked_keep(t, REVOKED_BY_FILE, 1);
	assert_true(revoked_has(t, id, STR("a"), NOW));
	revoked_keep(t, REVOKED_BY_FILE, 2);
	assert_false(revoked_has(t, id, STR("a"), NOW));
	assert_int_equal(revoked_count(t, REVOKED_BY_ADMIN), 3);
	revoked_free(&t);
	identity_put(&id);
}

static void revocations_are_bounded(void **state)
{
	struct revoked *t = revoked_new();
	char text[32];

	for (int i = 0; i <= REVOKED_MAX; i++) {
		struct revocation r;

		snprintf(text, sizeof(text), "token %d", i);
		r = revocation(REVOKED_JTI, text);
		assert_int_equal(revoked_add(t, &r), i < REVOKED_MAX ? 0 : -ENOSPC);
	}
	revoked_free(&t);
}

/* The hash of "ghk_" and 43 letters, as the tool makes keys. */
#define KEY "ghk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static void api_keys_are_read_strictly(void **state)
{
	static const struct {
		const char *members, *want; /* NULL: good */
	} cases[] = {
		{ "\"id\":\"a\",\"user\":\"u\"", NULL },
		{ "\"id\":\"a\",\"user\":\"u\",\"//"
		  "\":\"why\",\"scopes\":[\"x\"],\"claims\":{\"t\":{}}",
		  NULL },
		{ "\"user\":\"u\"", "keys[0]: \"id\" is missing" },
		{ "\"id\":\"a\"", "keys[0] (id \"a\"): \"user\" is missing" },
		{ "\"id\":\"a\",\"user\":7", "\"user\" is missing" },
		{ "\"id\":\"a\",\"user\":\"u\\n\"", "unfit for a header" },
		{ "\"id\":\"a\\n\",\"user\":\"u\"", "unfit" },
		{ "\"id\":\"a\",\"user\":\"u\",\"expire\":\"x\"", "has a member that is none of" },
		{ "\"id\":\"a\",\"user\":\"u\",\"expires\":\"soon\"", "must be dates" },
		{ "\"id\":\"a\",\"user\":\"u\",\"expires\":5", "must be dates" },
		{ "\"id\":\"a\",\"user\":\"u\",\"disabled\":\"no\"", "true or false" },
		{ "\"id\":\"a\",\"user\":\"u\",\"scopes\":\"x\"", "a list" },
		{ "\"id\":\"a\",\"user\":\"u\",\"scopes\":[\"x y\"]", "without white space" },
		{ "\"id\":\"a\",\"user\":\"u\",\"claims\":{\"sub\":\"v\"}",
		  "must not have \"sub\"" },
	};
	char hash[API_KEY_HASH_TEXT], text[1024];
	struct api_keys *keys = NULL;
	struct err err;

	api_key_hash_text(hash, STR(KEY));
	for (size_t i = 0; i < CASES(cases); i++) {
		int rc;

		snprintf(text, sizeof(text), "{\"keys\":[{\"hash\":\"%s\",%s}]}", hash,
			 cases[i].members);
		err.text[0] = '\0';
		rc = api_keys_parse(&keys, str_from(text), STR("sub"), &err);
		if ((rc == 0) != !cases[i].want ||
		    (cases[i].want && !strstr(err.text, cases[i].want)))
			fail_msg("%s: %d %s", cases[i].members, rc, err.text);
		api_keys_put(&keys);
	}
	assert_int_equal(api_keys_parse(&keys,
					STR("{\"keys\":[{\"id\":\"a\",\"user\":\"u\","
					    "\"hash\":\"sha256:AAAA\"}]}"),
					STR("sub"), &err),
			 -EINVAL);
	snprintf(text, sizeof(text),
		 "{\"keys\":[{\"hash\":\"%s\",\"id\":\"a\",\"user\":\"u\"},{\"hash\":\"%s\","
		 "\"id\":\"b\",\"user\":\"u\"}]}",
		 hash, hash);
	assert_int_equal(api_keys_parse(&keys, str_from(text), STR("sub"), &err), -EINVAL);
	assert_non_null(strstr(err.text, "is there already"));
}

static void api_keys_have_their_time(void **state)
{
	char hash[API_KEY_HASH_TEXT], text[512];
	struct api_keys *keys = NULL;
	struct identity *id = NULL;
	struct err err;

	api_key_hash_text(hash, STR(KEY));
	snprintf(text, sizeof(text),
		 "{\"keys\":[{\"hash\":\"%s\",\"id\":\"a\",\"user\":\"u\",\"scopes\":[\"x\",\"y\"],"
		 "\"not_before\":\"2027-01-15T08:00:00Z\",\"expires\":\"2027-01-15T08:01:00Z\"}]}",
		 hash); /* from NOW to NOW + 60 */
	assert_int_equal(api_keys_parse(&keys, str_from(text), STR("sub"), &err), 0);
	assert_int_equal(api_keys_check(keys, STR(KEY), NOW - 1, &id), API_KEY_NOT_YET_VALID);
	assert_int_equal(api_keys_check(keys, STR(KEY), NOW + 60, &id), API_KEY_EXPIRED);
	assert_int_equal(api_keys_check(keys, STR(KEY "A"), NOW, &id), API_KEY_UNKNOWN);
	assert_int_equal(api_keys_check(keys, STR(""), NOW, &id), API_KEY_UNKNOWN);
	assert_null(id);
	assert_int_equal(api_keys_check(keys, STR(KEY), NOW, &id), API_KEY_OK);
	assert_true(str_eqz(id->user->text, "u") && str_eqz(id->key_id->text, "a"));
	assert_true(identity_claim_has(id, STR("scope"), STR("y")));
	api_keys_put(&keys); /* who came by it keeps it */
	assert_true(str_eqz(id->user->text, "u"));
	identity_put(&id);
}

static void *look(void *arg)
{
	struct auth_keys *k = arg;
	struct auth_view view = { 0 };
	size_t changes = 0;

	while (changes < 1000 && view.generation < 1000) {
		if (auth_view_update(&view, k)) {
			changes++;
			assert_non_null(view.api_keys);
			/* Held, so it cannot go while it is looked at. */
			assert_int_equal(api_keys_count(view.api_keys), 0);
		}
	}
	auth_view_fini(&view);
	return NULL;
}

static void keys_change_under_who_looks(void **state)
{
	struct auth_keys *k = auth_keys_new();
	pthread_t threads[3];
	struct err err;

	for (size_t i = 0; i < CASES(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look, k), 0);
	for (int i = 0; i < 1000; i++) {
		struct api_keys *keys = NULL;

		assert_int_equal(api_keys_parse(&keys, STR("{\"keys\":[]}"), STR("sub"), &err), 0);
		auth_keys_set(k, NULL, keys);
	}
	for (size_t i = 0; i < CASES(threads); i++)
		pthread_join(threads[i], NULL);
	auth_keys_put(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_fit_patterns),
		cmocka_unit_test(urls_are_cut_into_parts),
		cmocka_unit_test(revocations_say_whom_they_mean),
		cmocka_unit_test(revocations_are_bounded),
		cmocka_unit_test(api_keys_are_read_strictly),
		cmocka_unit_test(api_keys_have_their_time),
		cmocka_unit_test(keys_change_under_who_looks),
	};

	return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
