/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sse.h"

#include <errno.h>

#define KEEP 65536 /* bytes of memory kept between events */

void sse_init(struct sse *s, size_t max)
{
	*s = (struct sse) { 0 };
	buf_init(&s->line, max);
	buf_init(&s->data, max);
}

void sse_fini(struct sse *s)
{
	buf_fini(&s->line);
	buf_fini(&s->data);
}

/* What does not fit is of no use to anybody here: it becomes "". */
static void set_text(char out[static 32], struct str value)
{
	size_t len = value.len < 32 ? value.len : 0;

	memcpy(out, value.p, len);
	out[len] = '\0';
}

static void sse_field(struct sse *s, struct str name, struct str value)
{
	if (str_eq(name, STR("data"))) {
		if (s->has_data)
			buf_putc(&s->data, '\n');
		buf_add(&s->data, value);
		s->has_data = true;
	} else if (str_eq(name, STR("event"))) {
		set_text(s->event, value);
	} else if (str_eq(name, STR("id")) && str_chr(value, '\0') < 0) {
		set_text(s->id, value);
	}
}

/* An empty line ends an event; one without data is none. */
static bool sse_line(struct sse *s, struct str line,
		     bool (*on_event)(struct str event, struct str id, struct str data, void *arg),
		     void *arg)
{
	ptrdiff_t colon;
	bool goes_on = true;

	if (str_ends(line, STR("\r")))
		line.len--;
	if (line.len == 0) {
		if (s->has_data)
			goes_on = on_event(str_from(s->event[0] ? s->event : "message"),
					   str_from(s->id), buf_str(&s->data), arg);
		/* A callback that ends the stream may have ended this object with it. */
		if (!goes_on)
			return false;
		buf_reset(&s->data, KEEP);
		s->has_data = false;
		s->event[0] = '\0';
		return true;
	}
	colon = str_chr(line, ':');
	if (colon == 0)
		return true; /* a comment */
	if (colon < 0) {
		sse_field(s, line, STR(""));
	} else {
		struct str value = str_sub(line, (size_t)colon + 1, line.len);

		if (str_starts(value, STR(" ")))
			value = str_sub(value, 1, value.len);
		sse_field(s, str_sub(line, 0, (size_t)colon), value);
	}
	return true;
}

int sse_feed(struct sse *s, struct str bytes,
	     bool (*on_event)(struct str event, struct str id, struct str data, void *arg),
	     void *arg)
{
	while (bytes.len) {
		ptrdiff_t end = str_chr(bytes, '\n');
		struct str part = end < 0 ? bytes : str_sub(bytes, 0, (size_t)end);

		/* A line that came in one piece is not copied; it is no shorter for that. */
		if (s->line.max && part.len > s->line.max)
			return -EMSGSIZE;
		if (end < 0 || buf_len(&s->line))
			buf_add(&s->line, part);
		if (end >= 0) {
			struct str line = buf_len(&s->line) ? buf_str(&s->line) : part;

			if (!buf_failed(&s->line) && !sse_line(s, line, on_event, arg))
				return -ECANCELED;
			if (!buf_failed(&s->line))
				buf_reset(&s->line, KEEP);
		}
		if (buf_failed(&s->line) || buf_failed(&s->data))
			return -EMSGSIZE;
		bytes = end < 0 ? STR("") : str_sub(bytes, (size_t)end + 1, bytes.len);
	}
	return 0;
}
