/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/overload.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "lib/cleanup.h"
#include "lib/clock.h"

#define PROBE_INTERVAL_NS (5 * NSEC_PER_MSEC)
#define MEASURE_LIFE_NS   (200 * NSEC_PER_MSEC) /* older ones say nothing about now */

static void on_report(struct loop_io *io, uint32_t events)
{
	struct overload *o = container_of(io, struct overload, io);

	(void)events;
	if (!o->is_out)
		return;
	o->is_out = false;
	/* Not the loop's time, which is that of its round's begin: the place in the round counts.
	 */
	o->reported_ns = clock_mono_ns();
	o->before_ns = o->last_ns;
	o->last_ns = o->reported_ns - o->sent_ns;
}

int overload_init(struct overload *o, struct loop *loop)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int rc;

	*o = (struct overload) { .loop = loop, .io = { .fd = fd, .on_event = on_report } };
	if (fd < 0)
		return -errno;
	/* Edge-triggered: each write is an event, though nobody reads the counter. */
	rc = loop_io_add(loop, &o->io, EPOLLIN | EPOLLET);
	if (rc < 0)
		overload_fini(o);
	return rc;
}

void overload_fini(struct overload *o)
{
	if (o->io.fd < 0)
		return;
	loop_io_remove(o->loop, &o->io);
	cleanup_close(&o->io.fd);
	o->io.fd = -1;
}

static void probe(struct overload *o)
{
	uint64_t one = 1;

	o->sent_ns = clock_mono_ns();
	o->is_out = write(o->io.fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

uint64_t overload_delay_ns(struct overload *o, uint64_t now_ns)
{
	uint64_t last_ns = o->last_ns, before_ns = o->before_ns;

	if (o->is_out) {
		uint64_t waiting_ns = now_ns > o->sent_ns ? now_ns - o->sent_ns : 0;

		return MIN(last_ns, MAX(before_ns, waiting_ns));
	}
	if (now_ns > o->reported_ns + MEASURE_LIFE_NS)
		last_ns = before_ns = o->last_ns = o->before_ns = 0;
	if (now_ns > o->reported_ns + PROBE_INTERVAL_NS)
		probe(o);
	return MIN(last_ns, before_ns);
}
