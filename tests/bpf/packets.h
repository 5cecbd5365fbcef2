/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets by hand, and a loaded program to put them through. Everything here is written without the
 * headers under test, so that a mistake there cannot hide itself here.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>
#include <linux/bpf.h>
#include <linux/types.h>

#define PACKET_MAX 2048

struct bytes {
	uint8_t b[PACKET_MAX];
	uint32_t len;
};

static inline void put(struct bytes *p, const void *data, uint32_t len)
{
	assert_true(p->len + len <= PACKET_MAX);
	memcpy(p->b + p->len, data, len);
	p->len += len;
}

static inline void put8(struct bytes *p, uint32_t v)
{
	uint8_t b = (uint8_t)v;

	put(p, &b, 1);
}

static inline void put16(struct bytes *p, uint32_t v)
{
	put8(p, v >> 8);
	put8(p, v & 0xff);
}

static inline void put32(struct bytes *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p, v & 0xffff);
}

static inline void set16(struct bytes *p, uint32_t at, uint32_t v)
{
	p->b[at] = (uint8_t)(v >> 8);
	p->b[at + 1] = (uint8_t)v;
}

/* RFC 1071, a byte pair at a time. */
static inline uint16_t checksum(const uint8_t *b, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < len; i += 2)
		sum += (uint32_t)(b[i] << 8) | (i + 1 < len ? b[i + 1] : 0U);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static const uint8_t MAC_ROUTER[6] = { 2, 0, 0, 0, 0, 0xaa };
static const uint8_t MAC_NLB[6] = { 2, 0, 0, 0, 0, 1 };

#define IP(a, b, c, d) \
	((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

struct ipv4_options {
	uint32_t source, destination;
	uint8_t protocol, tos, ttl;
	uint16_t id, frag;
	uint32_t options_len;
};

/* Header whose length covers `payload_len` bytes that follow. */
static inline void put_ipv4(struct bytes *p, const struct ipv4_options *o, uint32_t payload_len)
{
	uint32_t at = p->len;
	uint32_t header_len = 20 + o->options_len;

	put8(p, 0x40 | header_len / 4);
	put8(p, o->tos);
	put16(p, header_len + payload_len);
	put16(p, o->id);
	put16(p, o->frag);
	put8(p, o->ttl);
	put8(p, o->protocol);
	put16(p, 0);
	put32(p, o->source);
	put32(p, o->destination);
	for (uint32_t i = 0; i < o->options_len; i++)
		put8(p, 1); /* no operation */
	set16(p, at + 10, checksum(p->b + at, header_len));
}

static inline void put_ethernet(struct bytes *p, const uint8_t *to, const uint8_t *from,
				uint32_t type)
{
	put(p, to, 6);
	put(p, from, 6);
	put16(p, type);
}

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

static inline void put_tcp(struct bytes *p, uint32_t sport, uint32_t dport, uint32_t flags)
{
	put16(p, sport);
	put16(p, dport);
	put32(p, 0x11223344);
	put32(p, 0x55667788);
	put8(p, 5 << 4);
	put8(p, flags);
	put16(p, 0xfaf0);
	put16(p, 0xbeef); /* a checksum that nobody may touch */
	put16(p, 0);
}

/* Runs the packet once. Returns the XDP action; `out` is the packet afterwards. */
static inline uint32_t run_program(int fd, const struct bytes *in, struct bytes *out)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = out->b, .data_size_out = PACKET_MAX, .repeat = 1);
	int err;

	memset(out->b, 0, sizeof(out->b));
	err = bpf_prog_test_run_opts(fd, &opts);
	if (err)
		fail_msg("test run of %u bytes: %s", in->len, strerror(-err));
	out->len = opts.data_size_out;
	return opts.retval;
}

static inline void print_bytes(const char *what, const struct bytes *p)
{
	print_message("%s (%u):", what, p->len);
	for (uint32_t i = 0; i < p->len; i++)
		print_message("%s%02x", i % 16 ? " " : "\n  ", p->b[i]);
	print_message("\n");
}

static inline void assert_bytes(const struct bytes *got, const struct bytes *want, const char *why)
{
	if (got->len == want->len && memcmp(got->b, want->b, got->len) == 0)
		return;
	print_bytes("got", got);
	print_bytes("want", want);
	fail_msg("%s: the packet differs", why);
}

static inline uint64_t percpu_sum_u64(int fd, uint32_t key, size_t offset, size_t size)
{
	int cpus = libbpf_num_possible_cpus();
	uint8_t *values = calloc((size_t)cpus, size);
	uint64_t sum = 0;

	assert_non_null(values);
	assert_int_equal(bpf_map_lookup_elem(fd, &key, values), 0);
	for (int i = 0; i < cpus; i++) {
		uint64_t one;

		memcpy(&one, values + (size_t)i * size + offset, sizeof(one));
		sum += one;
	}
	free(values);
	return sum;
}

static inline int silent(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

/* The flow table has a region per CPU: stay on one, so that what was written is found. */
static inline void stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* Why the kernel would not load a program: no reason to fail where rights or BPF are missing. */
static inline bool is_missing_right(int err)
{
	/* The verifier too says EACCES, which is a fault of the program. */
	return err == -EPERM || (err == -EACCES && geteuid() != 0) || err == -ENOSYS ||
	       err == -EOPNOTSUPP;
}
