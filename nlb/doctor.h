/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbctl doctor: looks for what people get wrong with balancers whose gateways answer directly. A
 * check says one thing, good or bad, and with a bad one what to do. It changes nothing.
 *
 * ctl_doctor.c runs the checks and prints; each doctor_*.c holds those of one subject.
 */
#pragma once

#include "nlb/nlbctl.h"
#include "nlb/view.h"

enum doctor_result {
	DOCTOR_GOOD,
	DOCTOR_WARNING, /* works, but not as well as it should, or not always */
	DOCTOR_BAD,
	DOCTOR_UNKNOWN, /* cannot be told, for want of rights or tools */
	DOCTOR_RESULTS,
};

struct doctor {
	const struct nlbctl_options *o;
	bool is_admin;                 /* may read maps and programs */
	bool has_raw;                  /* may send packets of its own making */
	bool has_program, is_compiled; /* ours is attached; ... and is machine code */
	unsigned counts[DOCTOR_RESULTS];
	/* How it is printed. */
	bool is_unicode, is_coloured;
	int columns; /* 0: one line, however long */
	struct buf json;
	struct json_writer *writer; /* NULL: text */
};

/* `check` is a short, lasting name; the sentence follows. */
__attribute__((format(printf, 3, 4))) void doctor_good(struct doctor *d, const char *check,
						       const char *fmt, ...);
__attribute__((format(printf, 3, 4))) void doctor_unknown(struct doctor *d, const char *check,
							  const char *fmt, ...);
/* `remedy` is what to do: a command, where one exists. */
__attribute__((format(printf, 5, 6))) void doctor_found(struct doctor *d, enum doctor_result result,
							const char *check, const char *remedy,
							const char *fmt, ...);

#define DOCTOR_REMEDY_LEN 400
/* snprintf that returns `out`, to build a remedy where it is used. */
__attribute__((format(printf, 2, 3))) const char *doctor_text(char out[static DOCTOR_REMEDY_LEN],
							      const char *fmt, ...);

/* doctor_host.c: any host. */
void doctor_check_host(struct doctor *d);
/* After the roles, which may have found a program of ours. */
void doctor_check_jit(struct doctor *d);

/* doctor_interface.c: one interface with a program of ours pinned in `folder`. */
struct doctor_interface {
	const char *name;
	char folder[PATH_MAX]; /* of the pins */
	char link[24];         /* the pinned attachment's name there */
	const char *remedy;    /* attaches the program, or has it attached */
	bool is_attached;
	enum pins_mode mode;
};
void doctor_check_program(struct doctor *d, struct doctor_interface *i);
/* Only whether somebody else's program is where ours would have to go. */
void doctor_check_foreign(struct doctor *d, const struct doctor_interface *i);
void doctor_check_offloads(struct doctor *d, const struct doctor_interface *i);

/* doctor_nlb.c, doctor_gateway.c: one role each. */
void doctor_check_nlb(struct doctor *d);
void doctor_check_gateway(struct doctor *d);
/* Whether this host looks like one. */
bool doctor_is_nlb(const struct doctor *d);
bool doctor_is_gateway(const struct doctor *d, bool is_nlb);

/* A gateway as doctor_nlb.c found it. */
struct doctor_gateway {
	char name[128], vip[128];
	struct net_addr address;
	uint8_t encap;
	uint32_t ifindex; /* by the kernel's route; 0: none */
	uint32_t mtu;     /* towards it; 0: unknown */
};

/* doctor_path.c: does what is sent arrive? */
void doctor_check_path(struct doctor *d, const struct doctor_gateway *gateways, size_t count);
/* doctor_probe.c: is a connection through the tunnel answered? */
struct nlb_conf;
/* `conf` may be NULL; it tells the port to ask VIPs of every port on. */
void doctor_check_tunnels(struct doctor *d, const struct view *view, const struct nlb_conf *conf);
