/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of several services a request goes to, by weight: by chance, or always the same one for the
 * same key. Pure: the dice and the key are parameters.
 */
#pragma once

#include "gateway/conf/conf.h"

/* What the service's name adds to a key: the same on every gateway and in every run. */
uint64_t split_id(struct str service);

/* An index into the route's splits, for a number spread evenly over 64 bits. */
size_t split_draw(const struct gw_route *route, uint64_t dice);
/*
 * The same for the same key, as long as names and weights stay. When a weight grows, keys move to
 * that service alone, when it shrinks only some of its own move away, and no more than the shares
 * differ (weighted rendezvous hashing). A weight of 0 has no keys.
 */
size_t split_stick(const struct gw_route *route, uint64_t key);
