/* SPDX-License-Identifier: Apache-2.0 */
/* How registryctl asks the registry. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/tls_client.h"
#include "registry/ctl/ctl.h"

#define TOKEN_MAX 4096

int ctl_fail(const char *text)
{
	fprintf(stderr, "registryctl: %s\n", text);
	return FAILED;
}

__attribute__((format(printf, 1, 2))) int ctl_misuse(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "registryctl: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry: registryctl --help\n");
	return USAGE;
}

void ctl_cleanup_json(json_t **json)
{
	json_decref(*json);
}

/* What the registry says is wrong: "field: detail" of its problem document. */
int ctl_fail_with(const struct ctl *o, unsigned status, struct str body)
{
	CLEANUP(ctl_cleanup_json) json_t *json = json_loadb(body.p, body.len, 0, NULL);
	const char *detail = json_string_value(json_object_get(json, "detail"));
	const char *field = json_string_value(json_object_get(json, "field"));

	if (detail)
		fprintf(stderr, "registryctl: %s%s%s%s\n", field ? field : "", field ? " " : "",
			detail,
			status == 401 ? " (--token TOKEN, --token @FILE or $REGISTRY_TOKEN)" : "");
	else
		fprintf(stderr, "registryctl: %s: answered with status %u\n", o->url, status);
	return FAILED;
}

static const char *remedy(const struct ctl *o, const struct err *err)
{
	if (str_starts(str_from(o->url), STR("https:")) && strstr(err->text, "certificate"))
		return "--ca FILE names the authority to trust; the certificate must be for the "
		       "address in the URL";
	if (strstr(err->text, "closed before"))
		return "is it the registry's port, and does the registry speak TLS? then https://";
	return "is registryd running there? --url or $GATEHOUSE_REGISTRY says where";
}

/* One request. DONE with the body as JSON, or FAILED after saying why. */
int ctl_ask(const struct ctl *o, enum http_method method, struct str path, struct str body,
	    json_t **out)
{
	struct buf headers;
	struct http_request_spec spec = ctl_spec(o, &headers);
	struct http_answer answer = { 0 };
	struct err err = { "" };
	int r;

	spec.method = method;
	spec.target[1] = path;
	spec.body = body;
	spec.max_body = CTL_BODY_MAX;
	spec.response_timeout_ms = 10000;
	r = http_fetch(&answer, &spec, &err);
	buf_fini(&headers);
	if (r < 0) {
		fprintf(stderr, "registryctl: %s: %s (%s)\n", o->url, err.text, remedy(o, &err));
		return FAILED;
	}
	if (answer.status < 200 || answer.status > 299) {
		r = ctl_fail_with(o, answer.status, buf_str(&answer.body));
	} else if (out) {
		*out = json_loadb(buf_str(&answer.body).p, buf_len(&answer.body), 0, NULL);
		r = *out ? DONE : ctl_fail("the answer is no valid JSON; is that a registry?");
	}
	http_answer_fini(&answer);
	return r;
}

void ctl_add_path(struct buf *path, const char *app, const char *id, const char *suffix)
{
	buf_addz(path, "/v1/apps/");
	http_encode(path, str_from(app));
	if (id) {
		buf_addz(path, "/instances/");
		http_encode(path, str_from(id));
	}
	buf_addz(path, suffix);
}

int ctl_ask_about(const struct ctl *o, enum http_method method, const char *app, const char *id,
		  const char *suffix, struct str body, json_t **out)
{
	struct buf path;
	int r;

	buf_init(&path, 0);
	ctl_add_path(&path, app, id, suffix);
	r = ctl_ask(o, method, buf_str(&path), body, out);
	buf_fini(&path);
	return r;
}

/* --- who we are ------------------------------------------------------------------------------ */

struct http_request_spec ctl_spec(const struct ctl *o, struct buf *headers)
{
	buf_init(headers, 0);
	if (o->token) {
		buf_addz(headers, "Authorization: Bearer ");
		buf_addz(headers, o->token);
		buf_addz(headers, "\r\n");
	}
	return (struct http_request_spec) {
		.addr = &o->base.addr,
		.host = str_from(o->base.host),
		.target = { str_from(o->base.path) },
		.headers = buf_str(headers),
		.tls = o->tls,
		.tls_name = http_base_name(&o->base),
	};
}

struct reg_client_access ctl_access(const struct ctl *o)
{
	return (struct reg_client_access) {
		.token = o->token,
		.ca = o->ca,
		.certificate = o->certificate,
		.key = o->key,
	};
}

/* "@FILE" in place of a token, which would be seen in the list of processes. */
static int read_token(struct ctl *o)
{
	CLEANUP(cleanup_free) char *path = NULL;
	char text[TOKEN_MAX + 1];
	FILE *file;
	size_t len;

	if (!o->token || o->token[0] != '@')
		return DONE;
	path = TAKE_PTR(o->token);
	file = fopen(path + 1, "re");
	if (!file)
		return ctl_misuse("--token %s: %s", path, strerror(errno));
	len = fread(text, 1, TOKEN_MAX, file);
	fclose(file);
	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	o->token = strndup(text, len);
	return o->token ? DONE : ctl_fail("out of memory");
}

static bool is_token(const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	}
	return text[0] != '\0';
}

static int make_tls(struct ctl *o)
{
	struct tls_client_options options = { .verify = true,
					      .ca_file = o->ca,
					      .alpn = "http/1.1" };
	struct tls_identity *identity = NULL;
	struct err err;
	bool is_key;

	if (o->certificate) {
		identity = tls_identity_load(o->certificate, o->key ? o->key : o->certificate,
					     &is_key, &err);
		if (!identity)
			return ctl_fail(err.text);
	}
	options.identity = identity;
	o->tls = tls_client_new(&options, &err);
	tls_identity_put(&identity);
	return o->tls ? DONE : ctl_fail(err.text);
}

int ctl_prepare(struct ctl *o)
{
	struct err err = { "" };
	int r = http_base_parse(&o->base, str_from(o->url), HTTP_BASE_RESOLVE | HTTP_BASE_TLS,
				&err);

	if (r < 0) {
		fprintf(stderr, "registryctl: %s\n", err.text);
		return r == -EINVAL ? USAGE : FAILED;
	}
	r = read_token(o);
	if (r != DONE)
		return r;
	if (o->token && !is_token(o->token))
		return ctl_misuse("--token: must consist of visible ASCII characters");
	return o->base.is_tls ? make_tls(o) : DONE;
}

void ctl_fini(struct ctl *o)
{
	tls_client_free(&o->tls);
	free(o->token);
	json_decref(o->metadata);
}
