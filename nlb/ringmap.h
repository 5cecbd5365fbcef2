/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of one VIP as a BPF map: an inner map of `rings`, mapped into memory. What a ring holds
 * is rings.h's business.
 */
#pragma once

#include "nlb/rings.h"

struct ring {
	int fd;                 /* -1: there is none */
	struct nlb_slot *slots; /* NULL: there is none */
};

/*
 * Opens the ring that an earlier nlbd left, whose history keeps connections where they are. Returns
 * 0, also when there is none, or -errno when it is there and cannot be read.
 */
int ring_adopt(struct ring *ring, int rings_fd, uint16_t vip);
/*
 * Builds the new ring aside and puts it in place with one update, so that no packet sees half of
 * it. Returns the number of slots that changed owner, or -errno; the former ring stays then.
 */
int ring_replace(struct ring *ring, int rings_fd, uint16_t vip, const struct ring_member *members,
		 size_t count, const struct hash_key *hash_key, bool is_beginning);
/* Lets go of the memory; packets go on to use the ring. */
void ring_release(struct ring *ring);
/* Takes the mark off slots that moved longer ago than this. */
void ring_settle_in_place(struct ring *ring, uint32_t settle_s);
