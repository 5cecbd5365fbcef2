/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/json.h"

#define LOG_LINE_MAX 4096

static struct {
	const char *program;
	enum log_format format;
	enum log_level level;
	bool has_colour;
} log_state = { .program = "gatehouse", .level = LOG_INFO };

static const struct {
	const char *name, *colour;
} levels[] = {
	[LOG_ERROR] = { "error", "\033[31m" },
	[LOG_WARN] = { "warn", "\033[33m" },
	[LOG_INFO] = { "info", "" },
	[LOG_DEBUG] = { "debug", "\033[2m" },
};

void log_init(const char *program, enum log_format format, enum log_level level)
{
	log_state.program = program;
	log_state.format = format;
	log_state.level = level;
	log_state.has_colour = format == LOG_TEXT && isatty(STDERR_FILENO);
}

bool log_is_enabled(enum log_level level)
{
	return level <= log_state.level;
}

static void log_format_json(struct buf *line, enum log_level level, const char *when,
			    const char *text)
{
	struct json_writer w = json_writer(line);

	json_open(&w, NULL, '{');
	json_addz(&w, "timestamp", when);
	json_addz(&w, "level", levels[level].name);
	json_addz(&w, "program", log_state.program);
	json_addz(&w, "message", text);
	json_close(&w, '}');
}

void log_event(enum log_level level, const char *fmt, ...)
{
	char when[CLOCK_RFC3339_LEN + 1];
	char text[LOG_LINE_MAX];
	struct buf line;
	va_list ap;

	if (!log_is_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clock_rfc3339(when, clock_wall_ms());
	buf_init(&line, 8UL * LOG_LINE_MAX);
	if (log_state.format == LOG_JSON) {
		log_format_json(&line, level, when, text);
	} else {
		/* A line is a line: what strangers sent must not forge another one. */
		for (char *p = text; *p; p++) {
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = ' ';
		}
		buf_printf(&line, "%s %s%-5s%s %s: %s", when,
			   log_state.has_colour ? levels[level].colour : "", levels[level].name,
			   log_state.has_colour ? "\033[0m" : "", log_state.program, text);
	}
	buf_putc(&line, '\n');
	/* A log that cannot be written has nowhere to be reported. */
	if (!buf_failed(&line) && write(STDERR_FILENO, buf_data(&line), buf_len(&line)) < 0)
		line.has_failed = true;
	buf_fini(&line);
}
