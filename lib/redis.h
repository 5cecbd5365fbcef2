/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis client on one event loop: a connection that is kept up, a pipeline of commands with bounds
 * and time-outs. It never blocks, never logs, and waits for nobody: a command that cannot be sent
 * now is refused, and the caller decides what that means. Speaks RESP2 (Redis 5 and later).
 */
#pragma once

#include <hiredis/hiredis.h> /* for struct redisReply, what answers are made of */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/net.h"
#include "lib/str.h"

struct loop;
struct redis;

/* --- where ---------------------------------------------------------------------------------- */

#define REDIS_CREDENTIAL_MAX 512

struct redis_url {
	struct net_addr addr;
	char user[REDIS_CREDENTIAL_MAX]; /* "": the default user */
	char password[REDIS_CREDENTIAL_MAX];
	unsigned db;
};

/*
 * "redis://[[USER]:PASSWORD@]ADDRESS[:PORT][/DB]" with %XX in user and password, or
 * "unix:/path[?db=N]". Names are refused, they would have to be looked up. Returns 0, or -EINVAL
 * with a sentence in err that holds no password.
 */
int redis_url_parse(struct redis_url *out, struct str url, struct err *err);

/* --- the connection ------------------------------------------------------------------------- */

/* Copied by redis_new. Zero means the default given here. */
struct redis_options {
	struct redis_url url;
	const char *name;            /* for CLIENT SETNAME, so that operators see who that is */
	uint32_t connect_timeout_ms; /* 1 s, from connect until the server said that it is ready */
	uint32_t command_timeout_ms; /* 1 s */
	uint32_t backoff_min_ms;     /* 100 ms before the first further attempt, ± half of it */
	uint32_t backoff_max_ms;     /* 5 s */
	size_t max_pending;          /* commands without an answer, 4096 */
	size_t max_out;              /* bytes not yet sent, 1 MiB */
	size_t max_reply;            /* bytes of one answer, 64 MiB */
	/* The connection came up (detail ""), or it was lost or an attempt failed (why). NULL: not
	 * told. All pending commands were told before. Must not call redis_free. */
	void (*on_state)(struct redis *r, bool is_up, const char *detail, void *arg);
	void *arg;
};

/* Begins to connect in the loop's next round, and again whenever the connection is lost. NULL: out
 * of memory. */
struct redis *redis_new(struct loop *loop, const struct redis_options *options);
/* Pending commands are told -ECANCELED. Clears the pointer; NULL inside is fine. Not from within a
 * callback of it. */
void redis_free(struct redis **r);
bool redis_is_up(const struct redis *r);
/* Whether a command would be refused for want of room. */
bool redis_is_full(const struct redis *r);

/* --- commands ------------------------------------------------------------------------------- */

struct redis_answer {
	/*
	 * 0: `reply` is set and no error. -EREMOTEIO: the server refused the command, `reply` is
	 * the error. Without a reply, the command may or may not have been done: -ETIMEDOUT,
	 * -ECONNRESET, -EPROTO (what came is not Redis' language, or an answer beyond the bound);
	 * -ECANCELED (redis_free).
	 */
	int error;
	const struct redisReply *reply; /* borrowed for the call */
	const char *problem;            /* with an error: a short sentence, never NULL */
};

/* Called exactly once for each command that was accepted, in the loop's thread, in the order of
 * the commands (after a NOSCRIPT, a script's answer comes later). May send further commands. */
typedef void redis_answer_fn(const struct redis_answer *answer, void *arg);

/*
 * Queues a command; what is queued in a round leaves in one write. Nothing in args needs to outlive
 * the call. on_answer NULL: nobody is interested. Returns 0; -ENOTCONN while there is no
 * connection; -ENOBUFS when the pipeline or the output is at its bound; -ENOMEM. Then on_answer is
 * not called.
 */
int redis_command(struct redis *r, const struct str *args, size_t count, redis_answer_fn *on_answer,
		  void *arg);
/*
 * The same with a time-out of its own: for commands that block at the server (XREAD BLOCK). They
 * hold up what is sent behind them, so give them a connection of their own, and a time-out beyond
 * what they wait.
 */
int redis_command_for(struct redis *r, uint32_t timeout_ms, const struct str *args, size_t count,
		      redis_answer_fn *on_answer, void *arg);

/* A Lua script, for one connection (another one wants a copy of this). */
struct redis_script {
	struct str text;  /* not copied */
	char sha[40 + 1]; /* of the text, by redis_script_init */
	uint64_t loaded;  /* when it was sent last, 0: never */
};

void redis_script_init(struct redis_script *script, struct str text);

/*
 * EVALSHA. args: the keys, key_count of them, then the arguments. The first use on a connection
 * sends the script ahead; a server that forgot it (NOSCRIPT) is given it again and the command is
 * repeated once, which the caller does not notice. Otherwise like redis_command.
 */
int redis_eval(struct redis *r, struct redis_script *script, size_t key_count,
	       const struct str *args, size_t count, redis_answer_fn *on_answer, void *arg);

/* --- answers -------------------------------------------------------------------------------- */

/* Item i of an array, NULL when it is none or shorter. */
const struct redisReply *redis_item(const struct redisReply *reply, size_t i);
/* Of strings and status replies; p is NULL for others. */
struct str redis_text(const struct redisReply *reply);
/* Of integers and of strings of digits, sign allowed. */
bool redis_int(const struct redisReply *reply, int64_t *out);

/* --- numbers -------------------------------------------------------------------------------- */

/* Read by any thread with metrics_get. */
struct redis_stats {
	uint64_t is_up;    /* 0 or 1 */
	uint64_t connects; /* connections that came up */
	uint64_t failures; /* connections lost and attempts failed */
	uint64_t commands; /* accepted */
	uint64_t refused;  /* not accepted: no connection, or at a bound */
	uint64_t errors;   /* answered by an error */
	uint64_t lost;     /* ended without an answer */
	uint64_t timeouts; /* connections dropped because an answer was late */
	uint64_t answers;
	uint64_t answer_us; /* sum over all answers, from the command on */
};

const struct redis_stats *redis_stats(const struct redis *r);
