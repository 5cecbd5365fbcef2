/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes instances on somebody's request goes through here, whichever store is configured:
 * with `memory` it is done when reg_writer_submit returns, with a shared store when that answers.
 */
#pragma once

#include "lib/list.h"
#include "registry/store.h"

struct http_request;
struct loop;
struct reg_write;
struct reg_writer;

enum reg_write_op {
	REG_WRITE_PUT,    /* `instance` */
	REG_WRITE_REMOVE, /* the one of instance.id */
	REG_WRITE_STATUS, /* override, and what it reports unless that is REG_NO_STATUS */
};

/* In the arena of the request that asks for it. */
struct reg_write {
	enum reg_write_op op;
	struct str app; /* lower case */
	struct reg_instance instance;
	enum reg_status override, reported;
	struct http_request *req;
	/*
	 * Answers the request. `result` is a reg_put for REG_WRITE_PUT, else 0; or -ENOENT,
	 * -ENOSPC, -EDQUOT, -ENOMEM, -EAGAIN (the shared store is away: it may or may not have been
	 * done). Not called when the client has gone.
	 */
	void (*done)(struct reg_write *write, int result, uint64_t index);
	void *arg;

	/* the writer's */
	struct list node;
	int result;
	uint64_t index;
};

struct reg_writer_ops {
	void (*submit)(struct reg_writer *w, struct reg_write *write);
	void (*report)(struct reg_writer *w, struct str app, struct str id, enum reg_status status);
	bool (*is_away)(const struct reg_writer *w);
};

/* The first member of a kind's own struct. */
struct reg_writer {
	const struct reg_writer_ops *ops;
	struct loop *loop;
	struct reg_store *store;
	bool is_loaded;  /* until the shared store was read, nothing is known */
	bool is_checker; /* runs the checks; of several registries one does */
};

void reg_writer_memory_init(struct reg_writer *w, struct loop *loop, struct reg_store *store);

static inline void reg_writer_submit(struct reg_writer *w, struct reg_write *write)
{
	w->ops->submit(w, write);
}

/* What a check found out, in the place of what the instance says; nobody waits for it. */
static inline void reg_writer_report(struct reg_writer *w, struct str app, struct str id,
				     enum reg_status status)
{
	w->ops->report(w, app, id, status);
}

/* The shared store cannot be reached: nothing is changed, nothing runs out, and what is read may be
 * old. */
static inline bool reg_writer_is_away(const struct reg_writer *w)
{
	return w->ops->is_away(w);
}

/* Renews. 0, -ENOENT, or -EAGAIN: remembered, but somebody else may believe that the lease ran out,
 * so the client should try another registry. */
int reg_writer_renew(struct reg_writer *w, struct str app, struct str id);
