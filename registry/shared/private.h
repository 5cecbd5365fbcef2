/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the shared store share. */
#pragma once

#include "lib/arena.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "registry/shared/shared.h"

#define SHARED_TEXT  64 /* of epochs, ids of the stream, numbers */
#define SHARED_BATCH 200
/* How long an instance outlives its lease in Redis, for when no registry is there to end it. */
#define SHARED_LINGER_MS 3600000ULL

enum shared_state {
	SHARED_AWAY,     /* a connection is missing */
	SHARED_CHECKING, /* whether Redis still has what we know */
	SHARED_FILLING,  /* it has not: from memory into Redis */
	SHARED_LOADING,  /* it has something else: into memory */
	SHARED_READY,
};

enum shared_script {
	SHARED_CHECK,
	SHARED_KEEP,
	SHARED_FILLED,
	SHARED_LOAD,
	SHARED_PUT,
	SHARED_REMOVE,
	SHARED_STATUS,
	SHARED_RENEW,
	SHARED_EXPIRE,
	SHARED_SCRIPTS,
};

/* What scripts answer first, beside a reg_put. */
#define SHARED_OTHER_LIFE (-1) /* of Redis: check first */
#define SHARED_UNKNOWN    (-2)

#define SHARED_AS_IT_IS "k" /* an override that stays */

/* One instance as Redis has it. */
struct shared_row {
	struct str name; /* "app/id", also of `app` and instance.id */
	struct str app;
	struct reg_instance instance;
};

#define SHARED_NEWS 512

struct shared_told {
	char text[SHARED_NEWS];
	uint64_t at_ms;
};

struct reg_shared {
	struct reg_writer writer; /* first */
	struct reg_shared_config config;
	struct redis *commands, *tail;
	struct redis_script scripts[SHARED_SCRIPTS];
	char *meta, *ids, *changes, *hashes; /* keys; the last is a prefix */
	char origin[SHARED_TEXT];            /* who we are */
	char epoch[SHARED_TEXT];             /* the life of Redis that our memory is of; "": none */
	char last_id[SHARED_TEXT];           /* of the stream, followed so far */
	enum shared_state state;
	uint64_t since_ms;   /* in this state */
	uint64_t generation; /* of what was asked for while getting ready */
	bool must_load;      /* we missed something */
	bool is_tailing;     /* an XREAD is on its way */
	bool was_ready, is_told_away;
	char why[160];              /* away */
	struct shared_told told[4]; /* the last of them */

	struct list sent;    /* struct shared_job: without an answer */
	struct list seen;    /* answered: until their change comes by the stream */
	struct list queued;  /* until we are ready */
	struct list batches; /* struct shared_batch */
	struct list lost;    /* struct shared_lost */

	struct loop_timer tick;
	struct loop_task expire;
	struct arena due_arena; /* names to expire */
	struct str *due;        /* pairs of name and lease */
	size_t due_count, due_cap;
	uint64_t checked_ms;

	/* while filling and loading */
	struct arena rows_arena;
	struct shared_row *rows;
	size_t row_count, row_cap;
	uint64_t load_index, load_base;
	char load_epoch[SHARED_TEXT], load_id[SHARED_TEXT];
	bool is_other_life;
	struct str *fill; /* names */
	size_t fill_count, fill_at, fill_pending;

	struct reg_shared_stats stats;
};

/* --- shared_scripts.c ------------------------------------------------------------------------ */

void shared_scripts_init(struct reg_shared *s);
/* Runs a script with our keys, epoch, index and origin before the arguments. */
int shared_eval(struct reg_shared *s, enum shared_script script, const struct str *args,
		size_t count, redis_answer_fn *on_answer, void *arg);
/* The first number of an answer; what is none is an error. */
int64_t shared_code(const struct redis_answer *answer);

#define SHARED_NAME_MAX (REG_APP_MAX + 1 + REG_ID_MAX)

/* "app/id"; a NULL p when it cannot be one. */
struct str shared_name(char out[static SHARED_NAME_MAX], struct str app, struct str id);
bool shared_name_split(struct str name, struct str *app, struct str *id);

/* Arguments with memory of their own. */
struct shared_args {
	struct arena arena;
	struct str *v;
	size_t count, cap;
	bool has_failed;
};
void shared_args_init(struct shared_args *a);
void shared_args_fini(struct shared_args *a);
void shared_args_add(struct shared_args *a, struct str text);
void shared_args_u64(struct shared_args *a, uint64_t n);
void shared_args_name(struct shared_args *a, struct str app, struct str id);
/* What an instance says of itself, and beside it status and override. */
void shared_args_instance(struct shared_args *a, struct str app, const struct reg_instance *i);
/* The other way round; slices point into `record`. */
bool shared_row_read(struct shared_row *row, struct str record, struct str status,
		     struct str override, struct str registered, struct str index);

/* --- shared.c -------------------------------------------------------------------------------- */

/* Finds out what Redis has and goes on from there. */
void shared_recover(struct reg_shared *s, const char *why);
void shared_enter(struct reg_shared *s, enum shared_state state);
void shared_ready(struct reg_shared *s);
/* The stream has brought us further. */
void shared_advanced(struct reg_shared *s);
/* Puts our version of an instance into Redis. */
void shared_put_back(struct reg_shared *s, struct str app, const struct reg_instance *i);
void shared_remove_again(struct reg_shared *s, struct str app, struct str id);
__attribute__((format(printf, 2, 3))) void shared_news(struct reg_shared *s, const char *fmt, ...);
/* The same, of what somebody has to do something about. */
__attribute__((format(printf, 2, 3))) void shared_trouble(struct reg_shared *s, const char *fmt,
							  ...);

/* --- shared_load.c --------------------------------------------------------------------------- */

void shared_check(struct reg_shared *s);
void shared_load_fini(struct reg_shared *s);

/* --- shared_tail.c --------------------------------------------------------------------------- */

void shared_follow(struct reg_shared *s);

/* --- shared_lease.c -------------------------------------------------------------------------- */

/* Tells what was renewed; what Redis had lost is put back later. */
void shared_tell_renewals(struct reg_shared *s);
void shared_find_lost(struct reg_shared *s);
void shared_on_expire_task(struct loop_task *task);
void shared_lease_fini(struct reg_shared *s);
