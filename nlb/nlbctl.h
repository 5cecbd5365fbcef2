/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the command share: its options, asking nlbd, and how it says that something
 * went wrong. Each noun is a file ctl_*.c, each command a `struct command` in it and a line in the
 * table of nlbctl.c.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/http1.h"
#include "nlb/decap.h"

#define NLBCTL_SOCKET        "/run/gatehouse/nlb.sock"
#define NLBCTL_PIN_DIRECTORY "/sys/fs/bpf/gatehouse"
#define NLBCTL_CONFIG        "/etc/gatehouse/nlb.json"

enum { DONE = 0, FAILED = 1, USAGE = 2 }; /* exit status */

/* Options that not every command takes. */
enum nlbctl_takes {
	TAKES_VIP = 1 << 0,
	TAKES_SOURCE = 1 << 1,
	TAKES_MODE = 1 << 2,
	TAKES_INTERFACE = 1 << 3,
	TAKES_CONFIG = 1 << 4,
	TAKES_INTERVAL = 1 << 5,
	TAKES_COUNT = 1 << 6,
	TAKES_FOR = 1 << 7,
	TAKES_NETNS = 1 << 8,
};

struct nlbctl_options {
	const char *socket;
	const char *pin_directory;
	enum pins_mode mode;
	bool wants_json, wants_help;
	const char *interface; /* NULL: not given */
	const char *config;    /* NULL: not given */
	const char *netns;     /* NULL: not given */
	uint64_t interval_ms;
	uint64_t count; /* 0: without end */
	uint64_t for_s; /* 0: for good */
	/* Names for flows, addresses for decap and doctor. */
	const char *vips[DECAP_LIST_MAX], *sources[DECAP_LIST_MAX];
	size_t vip_count, source_count;
	unsigned given; /* enum nlbctl_takes */
};

struct command {
	const char *name, *sub; /* sub: the second word, or NULL */
	const char *arguments;  /* as --help shows them; NULL: none */
	int min, max;           /* how many of them */
	unsigned takes;         /* enum nlbctl_takes */
	/* `args` ends with NULL. Returns the exit status. */
	int (*run)(const struct nlbctl_options *o, char **args);
	const char *summary; /* a line */
	const char *help;    /* what else there is to say, ending in a newline */
};

/* These print a sentence and return the exit status that goes with it. */
int nlbctl_fail(const char *text);
__attribute__((format(printf, 1, 2))) int nlbctl_failf(const char *fmt, ...);
__attribute__((format(printf, 1, 2))) int nlbctl_misuse(const char *fmt, ...);

/* Asks nlbd; prints the answer if JSON is wanted, else returns it parsed in *out. */
int nlbctl_ask(const struct nlbctl_options *o, enum http_method method, const char *path,
	       const char *query, json_t **out);
/* GET for those who can do without: NULL when nlbd does not answer, and nothing is said. */
json_t *nlbctl_get_quietly(const struct nlbctl_options *o, const char *path);
/* GET, and `print` of the answer unless JSON is wanted. */
int nlbctl_show(const struct nlbctl_options *o, const char *path, const char *query,
		int (*print)(const json_t *document));
/* POST, and one line that says so. */
int nlbctl_change(const struct nlbctl_options *o, const char *path, const char *query,
		  const char *done);
/* Adds "?name=value" or "&name=value", encoded. The caller adds the NUL at the end. */
void nlbctl_query(struct buf *query, const char *name, const char *value);

/* Members of answers; "-" and 0 for those that are not there. */
const char *nlbctl_text(const json_t *object, const char *key);
json_int_t nlbctl_number(const json_t *object, const char *key);
/* "203.0.113.10:443/tcp", "[2001:db8::1]:53/udp" of an answer's VIP. */
#define NLBCTL_SERVICE_LEN 160
const char *nlbctl_service(char out[static NLBCTL_SERVICE_LEN], const json_t *vip);

extern const struct command command_status, command_vips, command_gateways, command_flows;
extern const struct command command_trace, command_top, command_doctor;
extern const struct command command_drain, command_undrain, command_reload, command_detach;
extern const struct command command_withdraw, command_announce;
extern const struct command command_block, command_unblock, command_blocked;
extern const struct command command_decap_attach, command_decap_detach, command_decap_status;
