/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that TLS is made of (certificates with keys, authorities, ticket keys), each loaded
 * once for all listeners, services and workers, and again when it changed. A file that has become
 * unusable changes nothing: what was loaded before stays. Main thread.
 */
#pragma once

#include "gateway/conf/conf.h"
#include "lib/tls_server.h"

struct tls_files;

/* All that the configuration names; what is unusable is an error here. NULL with the sentence in
 * err. */
struct tls_files *tls_files_new(const struct gw_conf *conf, struct err *err);
void tls_files_free(struct tls_files **f);

/* What was loaded for these paths, which the configuration must name; valid until the next
 * tls_files_refresh. */
const struct tls_identity *tls_files_identity(const struct tls_files *f, struct str certificate,
					      struct str key);
const struct tls_trust *tls_files_trust(const struct tls_files *f, struct str path);
const struct tls_ticket_keys *tls_files_tickets(const struct tls_files *f, struct str path);

/* The paths of all of them; the array is the callee's and lives as long as it. */
const char *const *tls_files_paths(const struct tls_files *f, size_t *count);

/*
 * Loads again what looks different from outside. `on_file` hears of each one: a NULL problem when
 * there is something new. Returns whether there is anything new.
 */
bool tls_files_refresh(struct tls_files *f,
		       void (*on_file)(const char *path, const char *problem, void *arg),
		       void *arg);

/* Each certificate with the end of its time (Unix). */
void tls_files_each_certificate(const struct tls_files *f,
				void (*visit)(const char *path, int64_t until_s, void *arg),
				void *arg);
