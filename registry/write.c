/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/write.h"

#include <errno.h>

#include "lib/clock.h"
#include "lib/loop.h"

static void memory_submit(struct reg_writer *w, struct reg_write *write)
{
	uint64_t now_ms = loop_now_ms(w->loop), index = 0;
	const struct reg_instance *i = &write->instance;
	const struct reg_entry *e;
	int r = -EINVAL;

	switch (write->op) {
	case REG_WRITE_PUT:
		r = reg_store_put(w->store, write->app, i, now_ms, clock_wall_ms(), &index);
		break;
	case REG_WRITE_REMOVE:
		r = reg_store_remove(w->store, write->app, i->id, now_ms);
		index = reg_store_index(w->store);
		break;
	case REG_WRITE_STATUS:
		r = reg_store_set_status(w->store, write->app, i->id, write->override,
					 write->reported, now_ms);
		e = reg_store_find(w->store, write->app, i->id);
		index = e ? reg_entry_index(e) : 0;
		break;
	}
	write->done(write, r, index);
}

static void memory_report(struct reg_writer *w, struct str app, struct str id,
			  enum reg_status status)
{
	const struct reg_entry *e = reg_store_find(w->store, app, id);
	struct reg_instance i;

	if (!e)
		return;
	reg_entry_get(e, &i);
	reg_store_set_status(w->store, app, id, i.override, status, loop_now_ms(w->loop));
}

static bool memory_is_away(const struct reg_writer *w)
{
	(void)w;
	return false;
}

void reg_writer_memory_init(struct reg_writer *w, struct loop *loop, struct reg_store *store)
{
	static const struct reg_writer_ops ops = {
		.submit = memory_submit,
		.report = memory_report,
		.is_away = memory_is_away,
	};

	*w = (struct reg_writer) {
		.ops = &ops,
		.loop = loop,
		.store = store,
		.is_loaded = true,
		.is_checker = true,
	};
}

int reg_writer_renew(struct reg_writer *w, struct str app, struct str id)
{
	int r = reg_store_renew(w->store, app, id, loop_now_ms(w->loop));

	return reg_writer_is_away(w) ? -EAGAIN : r;
}
