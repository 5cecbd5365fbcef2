/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every daemon does the same way: command line, log set-up, descriptor limit, privileges,
 * systemd's notify protocol. Not the event loop and not the configuration.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/conf.h"
#include "lib/err.h"
#include "lib/log.h"
#include "lib/loop.h"

/* Describes a daemon to its own --help. */
struct daemon_program {
	const char *name;           /* "gatewayd" */
	const char *summary;        /* one sentence */
	const char *default_config; /* path, NULL when -c must be given */
	bool can_take_over;         /* knows --take-over */
	const char *notes; /* paragraphs for the end of --help: files, signals, an example */
};

struct daemon_options {
	const char *config; /* -c, --config */
	const char *user;   /* --user; NULL: stay who we are */
	bool wants_check;   /* --check: validate and end */
	bool takes_over;    /* --take-over: from a process that runs already */
	bool wants_schema;  /* --schema: print the JSON Schema of the configuration and end */
	enum log_format log_format;
	enum log_level log_level;
};

/*
 * Reads the command line and sets up the log. Returns -1 to go on, or the exit status to end with
 * at once (--help and
 * --version print and give 0, misuse gives 2).
 */
int daemon_parse_options(struct daemon_options *out, const struct daemon_program *program, int argc,
			 char **argv);

/* Logs what is wrong with a configuration, an event for each mistake and each warning. */
void daemon_log_conf(const char *file, const struct conf_errors *errors);
/*
 * The same before the daemon runs: lines to read for --check and when they end it, unless the log
 * is JSON.
 */
void daemon_report_conf(const struct daemon_options *o, const struct conf_errors *errors);
/* Says why it does not start; returns the exit status 1. */
int daemon_fail(const struct daemon_options *o, const struct daemon_program *program,
		const char *text);

/* Raises the soft limit of descriptors to the hard one. Returns the limit in force. */
size_t daemon_raise_fd_limit(void);

/*
 * Gives up every capability but `keep` (CAP_* numbers), for good and for children too, and becomes
 * `user` if one is named. Call it before the first thread and after everything that needs root. 0,
 * or -errno with the sentence in err. Not being root is no error: then there is nothing to give up.
 */
int daemon_drop_privileges(const char *user, const int *keep, size_t keep_count, struct err *err);

/* systemd's notify protocol, "READY=1", "RELOADING=1", "STOPPING=1", "STATUS=…"; silent when not
 * run by systemd. */
void daemon_notify(const char *state);
/* Feeds systemd's watchdog from this loop, if it asked for it: a stuck loop gets the daemon
 * restarted. */
void daemon_watchdog_start(struct loop *loop);
