/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What registryd is asked to do to find out whether an instance works, for services that cannot
 * renew a lease: its members, their bounds, and its one canonical JSON text, which is what store
 * and snapshot keep.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "registry/instance.h"

#define REG_CHECK_MAX      255 /* bytes of the text */
#define REG_CHECK_NAME_MAX 100 /* of a path or service */

enum reg_check_type { REG_CHECK_HTTP, REG_CHECK_TCP, REG_CHECK_GRPC };

struct reg_check {
	enum reg_check_type type;
	uint16_t port; /* 0: the instance's */
	uint32_t interval_ms, timeout_ms;
	unsigned rise, fall;               /* results in a row */
	char name[REG_CHECK_NAME_MAX + 1]; /* path of HTTP, service of gRPC */
};

/* 0, or -EINVAL with the problem. */
int reg_check_read(struct reg_check *out, const json_t *json, struct reg_problem *problem);
/* The canonical text; equal checks have equal texts. At most REG_CHECK_MAX bytes. */
void reg_check_write(const struct reg_check *check, struct buf *out);
/* From such a text; false when it is none. */
bool reg_check_parse(struct reg_check *out, struct str text);
const char *reg_check_type_name(enum reg_check_type type);
