/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses and the few socket calls that every daemon makes. Sockets are non-blocking and
 * close-on-exec. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/err.h"
#include "lib/str.h"

/* An address of any family that we use, with its length. */
struct net_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
	socklen_t len;
};

/* "192.0.2.1", "2001:db8::1", with an optional port: "192.0.2.1:80", "[2001:db8::1]:80", "*:80";
 * "unix:/path". Names are refused. */
int net_parse(struct net_addr *out, struct str text, uint16_t default_port);
/* An address without a port. */
int net_parse_ip(struct net_addr *out, struct str text, uint16_t port);
/* A unix socket's path, -EINVAL when it is empty or too long (107 bytes). */
int net_parse_unix(struct net_addr *out, struct str path);
uint16_t net_port(const struct net_addr *a);
void net_set_port(struct net_addr *a, uint16_t port); /* IPv4 and IPv6 */
bool net_addr_eq(const struct net_addr *a, const struct net_addr *b);
/* IPv4-mapped IPv6 (::ffff:a.b.c.d), as dual-stack sockets report it, becomes IPv4. */
void net_unmap(struct net_addr *a);

#define NET_ADDR_LEN 128
/* "192.0.2.1:80", "[2001:db8::1]:80", "unix:/path". Returns out. */
const char *net_format(char out[static NET_ADDR_LEN], const struct net_addr *a);
/* The address alone, no brackets, no port. */
const char *net_format_ip(char out[static NET_ADDR_LEN], const struct net_addr *a);

/* "10.0.0.0/8", "2001:db8::/32", or a single address. */
struct net_prefix {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint8_t bits;      /* counted in the 128-bit form */
};
bool net_prefix_is_ipv4(const struct net_prefix *p);
int net_parse_prefix(struct net_prefix *out, struct str text);
bool net_prefix_has(const struct net_prefix *p, const struct net_addr *a);
/* Sets the bits behind the prefix to zero: what means the same is equal then. */
void net_prefix_trim(struct net_prefix *p);
/* "10.0.0.0/8", and a single address without its length. Returns out. */
const char *net_format_prefix(char out[static NET_ADDR_LEN], const struct net_prefix *p);

/* A listening TCP or unix socket. Returns the descriptor or -errno with the sentence in err. A
 * stale unix socket file is replaced; any other file of that name is an error. */
int net_listen(const struct net_addr *a, bool reuse_port, int backlog, struct err *err);
/* Removes a unix socket's file, and never a file of another kind. */
void net_remove_socket_file(const struct net_addr *a);
/* Begins to connect: the descriptor (connection perhaps in progress), or -errno. */
int net_connect(const struct net_addr *a);
/* Accepts one connection: the descriptor or -errno. */
int net_accept(int listen_fd, struct net_addr *peer);
void net_set_nodelay(int fd);
/* A peer that takes nothing for so long, and does not say that it is there, is gone: the connection
 * breaks. Without it the kernel tries for a quarter of an hour. */
void net_set_patience(int fd, unsigned ms);
/* The pending error of a socket: 0 or -errno. */
int net_socket_error(int fd);
