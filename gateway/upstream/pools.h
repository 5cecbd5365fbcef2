/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The services' instances as the main thread knows them: from the registry or the configuration,
 * with the verdict of the active health checks. Whenever something changes, every worker gets the
 * new list.
 */
#pragma once

#include "gateway/gateway.h"

struct pools;

/* Connects to the registry if the configuration names one; registers nobody yet. NULL with the
 * sentence in err. */
struct pools *pools_new(struct gateway *g, struct err *err);
void pools_free(struct pools **p);
/* Takes the gateway's current snapshot over and hands all lists that are known to the workers: at a
 * reload before they get the configuration that uses them. */
void pools_update(struct pools *p);
/* Every service that is discovered has a list, or its registry was asked long enough. */
bool pools_are_ready(const struct pools *p);

/* Registers this gateway, if the configuration says so. */
int pools_register(struct pools *p, struct err *err);
/* OUT_OF_SERVICE at the registry: the NLB sends nothing new. */
void pools_leave(struct pools *p);
/* The registration is another process's from now on. */
void pools_let_go(struct pools *p);
/* Deregisters; then on_done, at the latest after two seconds, at once if there is nothing to do. */
void pools_deregister(struct pools *p, void (*on_done)(void *arg), void *arg);

struct pool_member_status {
	struct net_addr addr;
	uint16_t weight;
	bool is_checked, is_failing, is_near;
};

/* For status and metrics: calls back for each member of a service (by name), in no order. */
void pools_each_member(const struct pools *p, struct str service,
		       void (*fn)(const struct pool_member_status *m, void *arg), void *arg);
/* What the workers know together of a service; all zeroes when it is not known. */
struct circuit_status;
void pools_get_circuit(const struct pools *p, struct str service, struct circuit_status *out);
/* NULL when there is no registry. */
struct reg_client *pools_registry(const struct pools *p);
