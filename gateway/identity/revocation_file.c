/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/revocation_file.h"

#include <errno.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/clock.h"

static bool read_time(const json_t *json, const char *name, int64_t *out)
{
	const json_t *value = json_object_get(json, name);
	uint64_t ms;

	if (!value || json_is_null(value))
		return true;
	if (json_is_integer(value)) {
		*out = json_integer_value(value);
		return true;
	}
	if (!json_is_string(value) || clock_parse_rfc3339(json_string_value(value), &ms) < 0)
		return false;
	*out = (int64_t)(ms / MSEC_PER_SEC);
	return true;
}

static struct str text_of(const json_t *value)
{
	return str_of(json_string_value(value), json_string_length(value));
}

static bool is_known(const char *name)
{
	static const char *const others[] = { "auth", "issued_before", "until", "removed", "//" };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		if (strcmp(name, others[i]) == 0)
			return true;
	}
	return false;
}

static const char *read_member(struct revocation *r, const char *name, const json_t *value)
{
	for (unsigned kind = 0; kind < REVOKED_KINDS; kind++) {
		if (strcmp(name, revoked_kinds[kind]) != 0)
			continue;
		if (!json_is_string(value) || json_string_length(value) == 0)
			return "must have a text that is not empty as \"jti\", \"sub\" or "
			       "\"api_key\"";
		if (r->value.p)
			return "must have one of \"jti\", \"sub\" and \"api_key\", not several";
		r->kind = (enum revoked_kind)kind;
		r->value = text_of(value);
		return NULL;
	}
	return is_known(name) ? NULL
			      : "has a member that is none of jti, sub, api_key, auth, "
				"issued_before, until";
}

const char *revocation_read(const json_t *json, struct revocation *out)
{
	const json_t *auth = json_object_get(json, "auth");
	struct revocation r = { .before_s = INT64_MAX, .until_s = INT64_MAX };
	const char *name, *problem;
	json_t *value;

	if (!json_is_object(json))
		return "must be an object";
	json_object_foreach ((json_t *)(uintptr_t)json, name, value) {
		problem = read_member(&r, name, value);
		if (problem)
			return problem;
	}
	if (!r.value.p)
		return "must have one of \"jti\", \"sub\" and \"api_key\"";
	if (auth && !json_is_string(auth))
		return "must have the name of an auth as \"auth\"";
	if (auth)
		r.auth = text_of(auth);
	if (!read_time(json, "issued_before", &r.before_s) || !read_time(json, "until", &r.until_s))
		return "must have Unix seconds or a date such as \"2027-01-01T00:00:00Z\" as "
		       "\"issued_before\" and \"until\"";
	*out = r;
	return NULL;
}

void revocation_write(const struct revocation *r, struct json_writer *w)
{
	json_add_str(w, revoked_kinds[r->kind], r->value);
	if (r->auth.len)
		json_add_str(w, "auth", r->auth);
	if (r->before_s != INT64_MAX)
		json_add_i64(w, "issued_before", r->before_s);
	if (r->until_s != INT64_MAX)
		json_add_i64(w, "until", r->until_s);
}

static int load_list(const json_t *list, const char *file,
		     int (*each)(const struct revocation *r, void *arg), void *arg, struct err *err)
{
	struct revocation r;
	const json_t *item;
	size_t i;
	int rc;

	if (!json_is_array(list))
		return err_set(err, -EINVAL, "%s: holds no list \"revoked\"", file);
	if (json_array_size(list) > REVOKED_MAX)
		return err_set(err, -EINVAL, "%s: holds more than %d entries", file, REVOKED_MAX);
	json_array_foreach (list, i, item) {
		const char *problem = revocation_read(item, &r);

		if (problem)
			return err_set(err, -EINVAL, "%s: revoked[%zu]: %s", file, i, problem);
	}
	json_array_foreach (list, i, item) {
		if (!each || revocation_read(item, &r))
			continue;
		rc = each(&r, arg);
		if (rc < 0)
			return err_set(err, rc, "%s: %s", file, strerror(-rc));
	}
	return 0;
}

int revocation_file_load(const char *file, int (*each)(const struct revocation *r, void *arg),
			 void *arg, struct err *err)
{
	json_error_t syntax;
	struct stat st;
	json_t *root;
	int rc;

	if (stat(file, &st) < 0)
		return err_set(err, -EINVAL, "cannot read %s: %s", file, strerror(errno));
	if (st.st_size > (off_t)REVOCATION_FILE_MAX)
		return err_set(err, -EINVAL, "%s: is larger than %u MiB", file,
			       REVOCATION_FILE_MAX >> 20);
	root = json_load_file(file, JSON_REJECT_DUPLICATES, &syntax);
	if (!root)
		return err_set(err, -EINVAL, "%s: line %d, column %d: %s", file, syntax.line,
			       syntax.column, syntax.text);
	rc = load_list(json_object_get(root, "revoked"), file, each, arg, err);
	json_decref(root);
	return rc;
}
