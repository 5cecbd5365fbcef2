/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process as a whole: what workers share, and what the main thread does beside them: signals,
 * reload, drain, the registry, health checks, the admin port. Belongs to the main thread but for
 * the three shared tables.
 */
#pragma once

#include "gateway/analytics/record.h"
#include "gateway/identity/revoked.h"
#include "gateway/identity/token_cache.h"
#include "gateway/limits/limits.h"
#include "gateway/snapshot.h"
#include "gateway/worker.h"
#include "lib/loop.h"
#include "lib/sockets.h"

struct file_watch;
struct tls_files;
struct admin;
struct handover;
struct keyring;
struct limit_store;
struct pools;
struct revocations;
struct upgrade;

enum gateway_state {
	GATEWAY_STARTING,
	GATEWAY_RUNNING,
	GATEWAY_LEAVING,  /* told the registry and /readyz, still accepting for drain_delay */
	GATEWAY_DRAINING, /* finishing what runs */
	GATEWAY_STOPPED,
};

struct gateway {
	/* shared by all threads */
	struct limits_table *limits;
	struct limit_store *limit_store; /* NULL: limits are not shared with other gateways */
	struct token_cache *token_cache;
	struct revoked *revoked;
	struct record_writer *records; /* NULL: not started yet */
	struct record_stream *stream;  /* NULL: none was configured yet */

	/* the main thread's */
	struct loop *loop;
	const char *config_file;
	struct snapshot *snapshot;
	struct worker **workers;
	unsigned worker_count, workers_running;
	struct pools *pools;
	struct keyring *keyring;
	struct revocations *revocations;
	struct admin *admin;
	enum gateway_state state;
	struct loop_timer state_timer;
	uint64_t start_ms;
	uint64_t reloads, reloads_failed;

	const char *program; /* file of this process, and its arguments: for the next one */
	char *const *argv;
	struct sockets inherited;  /* listening already, until they are taken */
	struct handover *handover; /* of the sockets, in progress; NULL: none */
	struct upgrade *upgrade;   /* a process that was started to take over */
	bool has_let_go;           /* another process has the sockets and the registration */
	bool has_failed;
	struct err failure;
	struct tls_files *tls_files;
	struct file_watch *tls_watch;
	uint64_t tls_reloads, tls_reloads_failed; /* of single files, when they changed */
};

/* Opens sockets and builds everything, in this order; starts no thread. 0, or -errno with the
 * sentence in err. */
int gateway_start(struct gateway *g, struct snapshot *snapshot, struct err *err);
/* After privileges were given up: threads, then runs until drained. */
int gateway_run(struct gateway *g, struct err *err);
void gateway_fini(struct gateway *g);

/* Everything is there: accepts, registers, says so. */
void gateway_go_live(struct gateway *g);
/* Ends gateway_run with this sentence. */
void gateway_fail(struct gateway *g, const char *why);
/* Another process goes on with the listening sockets, the admin socket and the registration: drains
 * without a word to anybody. */
void gateway_let_go(struct gateway *g);

/* Reads the file again. A bad one changes nothing; the errors are logged, and appended to `errors`
 * unless NULL. */
int gateway_reload(struct gateway *g, struct buf *errors);
/* Begins to drain; the process ends by itself. A second call ends it at once. */
void gateway_drain(struct gateway *g);
bool gateway_is_ready(const struct gateway *g);
const char *gateway_state_name(enum gateway_state s);
