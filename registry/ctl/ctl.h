/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of registryctl share: the options, asking the registry, and the commands. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/http_client.h"
#include "registry/client.h"

enum { DONE = 0, FAILED = 1, USAGE = 2 };

#define CTL_BODY_MAX  (256UL << 20)
#define CTL_TOKEN_ENV "REGISTRY_TOKEN"

struct ctl {
	struct http_base base;
	const char *url;
	char *token;
	const char *ca, *certificate, *key;
	struct tls_client *tls; /* NULL: not with TLS */
	bool wants_json, is_kept, is_secure, at_once;
	const char *zone, *status, *release;
	uint64_t lease_s, weight, drain_ms;
	json_t *metadata;
	char *const *command; /* behind "--", ended by NULL; NULL: none */
};

/* --- ctl_http.c ------------------------------------------------------------------------------ */

/* FAILED, after printing the text. */
int ctl_fail(const char *text);
/* USAGE, after printing the text and where help is. */
__attribute__((format(printf, 1, 2))) int ctl_misuse(const char *fmt, ...);
/* FAILED, after printing what the registry's answer says. */
int ctl_fail_with(const struct ctl *o, unsigned status, struct str body);
/* Reads URL, token and certificates. DONE, or another exit status after saying why. */
int ctl_prepare(struct ctl *o);
void ctl_fini(struct ctl *o);
/* The request that others make more of: where it goes, and who we are. `headers` is used by the
 * request: release it after. */
struct http_request_spec ctl_spec(const struct ctl *o, struct buf *headers);
struct reg_client_access ctl_access(const struct ctl *o);
/* One request. DONE with the body as JSON (out may be NULL), or FAILED after saying why. */
int ctl_ask(const struct ctl *o, enum http_method method, struct str path, struct str body,
	    json_t **out);
/* The same for /v1/apps/APP[/instances/ID]SUFFIX; `id` may be NULL. */
int ctl_ask_about(const struct ctl *o, enum http_method method, const char *app, const char *id,
		  const char *suffix, struct str body, json_t **out);
void ctl_add_path(struct buf *path, const char *app, const char *id, const char *suffix);
void ctl_cleanup_json(json_t **json);

/* --- ctl_show.c ------------------------------------------------------------------------------ */

void ctl_print_json(const json_t *json);
/* "-" when it is not there. */
const char *ctl_text(const json_t *object, const char *name);
void ctl_address(const json_t *instance, char *out, size_t size);
int ctl_apps(const struct ctl *o, int argc, char **argv);
int ctl_instances(const struct ctl *o, int argc, char **argv);
int ctl_registry(const struct ctl *o);

/* --- ctl_register.c, ctl_run.c, ctl_watch.c -------------------------------------------------- */

int ctl_register(const struct ctl *o, int argc, char **argv);
int ctl_deregister(const struct ctl *o, int argc, char **argv);
/* Starts the command and registers the instance while it runs. Its exit status. */
int ctl_run(const struct ctl *o, const char *app, const struct reg_instance *instance);
/* For a client's log. */
void ctl_on_event(enum reg_client_event event, const char *detail, void *arg);
int ctl_watch(const struct ctl *o, int argc, char **argv);
