/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance as Eureka's clients know it: what its API says beyond our own, how both fit together,
 * and reading it from a registration (JSON, or XML turned into JSON by eureka_xml.h).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/str.h"
#include "registry/instance.h"

/* What struct reg_instance does not have. Slices point into the instance, or into its makers'. */
struct eureka_info {
	struct str host, group, home_url, status_url, health_url, secure_health_url;
	struct str vip, secure_vip; /* lists with commas */
	struct str asg, sid;
	struct str data_center; /* "MyOwn", "Netflix", "Amazon" */
	struct str amazon;      /* its metadata, see eureka_amazon_next */
	uint32_t port, secure_port, country, renewal_s;
	bool has_port, has_secure_port; /* enabled */
	bool is_coordinating;
	uint64_t dirty_ms; /* the client's lastDirtyTimestamp; 0: not given */
	uint64_t up_ms;    /* when it was first UP; 0: never */
};

/* Of an instance registered by either API. */
void eureka_info_get(struct eureka_info *out, const char *app, const struct reg_instance *i);
/* Into i->eureka. 0, -ENOMEM, or -E2BIG. */
int eureka_info_set(struct reg_instance *i, const struct eureka_info *info, struct arena *a);
/* Walks the pairs; `*rest` begins as info->amazon. */
bool eureka_amazon_next(struct str *rest, struct str *key, struct str *value);

/* What is wrong with a registration, as text for people. */
struct eureka_problem {
	char text[256];
};

/*
 * Reads what stands in "instance". `app` is the one of the path, in lower case. Everything is
 * copied into the arena. The override is what the client says of one. Returns 0, -EINVAL with the
 * problem, -ENOMEM. Of `info` everything is set but up_ms; i->eureka is not set yet.
 */
int eureka_read(struct reg_instance *i, struct eureka_info *info, const json_t *json,
		const char *app, struct arena *a, struct eureka_problem *problem);
/* Takes zone, weight and version from the metadata, where it has them. */
void eureka_read_hints(struct reg_instance *i, const struct eureka_info *info);
