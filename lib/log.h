/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event log of a daemon, on stderr: one readable line or one JSON object per event. For what
 * operators act on, not for requests. Thread-safe: a line is one write. Only programs log; lib/
 * returns errors instead.
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Before the first thread. `program` must stay valid. Default: text, LOG_INFO, colours only on a
 * terminal. */
void log_init(const char *program, enum log_format format, enum log_level level);
bool log_is_enabled(enum log_level level);

/* The message names the object: "vip=rider: no healthy gateway, forwarding to all". No newline at
 * the end. */
__attribute__((format(printf, 2, 3))) void log_event(enum log_level level, const char *fmt, ...);

#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                     \
	do {                                               \
		if (log_is_enabled(LOG_DEBUG))             \
			log_event(LOG_DEBUG, __VA_ARGS__); \
	} while (0)
