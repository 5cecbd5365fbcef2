/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps what credentials are checked with up to date while a configuration is in use: key sets at
 * URLs, and the files of key sets and API keys when they change. What has become unusable changes
 * nothing. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct gateway;
struct json_writer;
struct keyring;
struct snapshot;

/* NULL when out of memory. */
struct keyring *keyring_new(struct gateway *g);
void keyring_free(struct keyring **k);

/* Gives a new configuration the keys that it will use: before any worker sees it. Those of URLs
 * that the former one named as well go on as they are. 0 or -ENOMEM, nothing being changed. */
int keyring_adopt(struct keyring *k, struct snapshot *s);
/* The configuration is in force (g->snapshot): what only the former one named is let go, and its
 * files are watched. */
void keyring_settle(struct keyring *k);

/* Whether every URL was tried at least once. */
bool keyring_is_ready(const struct keyring *k);

void keyring_write_metrics(const struct keyring *k, struct buf *out);
/* "auth": one object for each. */
void keyring_write_status(const struct keyring *k, struct json_writer *w);
