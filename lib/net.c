/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "lib/cleanup.h"

int net_parse_ip(struct net_addr *out, struct str text, uint16_t port)
{
	char z[INET6_ADDRSTRLEN + 1];
	struct net_addr a = { 0 };

	if (text.len == 0 || text.len >= sizeof(z) || memchr(text.p, '\0', text.len))
		return -EINVAL;
	memcpy(z, text.p, text.len);
	z[text.len] = '\0';
	if (inet_pton(AF_INET, z, &a.in.sin_addr) == 1) {
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons(port);
		a.len = sizeof(a.in);
	} else if (inet_pton(AF_INET6, z, &a.in6.sin6_addr) == 1) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = htons(port);
		a.len = sizeof(a.in6);
	} else {
		return -EINVAL;
	}
	*out = a;
	return 0;
}

int net_parse_unix(struct net_addr *out, struct str path)
{
	struct net_addr a = { .un.sun_family = AF_UNIX };

	if (path.len == 0 || path.len >= sizeof(a.un.sun_path))
		return -EINVAL;
	memcpy(a.un.sun_path, path.p, path.len);
	a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
	*out = a;
	return 0;
}

int net_parse(struct net_addr *out, struct str text, uint16_t default_port)
{
	struct str host = text;
	uint64_t port = default_port;
	ptrdiff_t at;

	if (str_starts(text, STR("unix:")))
		return net_parse_unix(out, str_sub(text, 5, text.len));
	if (text.len && text.p[0] == '[') {
		at = str_chr(text, ']');
		if (at < 0)
			return -EINVAL;
		host = str_sub(text, 1, (size_t)at);
		text = str_sub(text, (size_t)at + 1, text.len);
		if (text.len && text.p[0] != ':')
			return -EINVAL;
	} else {
		at = str_chr(text, ':');
		/* More than one colon and no brackets: an IPv6 address without a port. */
		if (at < 0 || str_chr(str_sub(text, (size_t)at + 1, text.len), ':') >= 0)
			return net_parse_ip(out, host, default_port);
		host = str_sub(text, 0, (size_t)at);
		text = str_sub(text, (size_t)at, text.len);
	}
	if (text.len && (!str_u64(str_sub(text, 1, text.len), &port) || port > UINT16_MAX))
		return -EINVAL;
	if (str_eq(host, STR("*")))
		host = STR("::");
	return net_parse_ip(out, host, (uint16_t)port);
}

void net_set_port(struct net_addr *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET6)
		a->in6.sin6_port = htons(port);
	else if (a->sa.sa_family == AF_INET)
		a->in.sin_port = htons(port);
}

uint16_t net_port(const struct net_addr *a)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		return ntohs(a->in.sin_port);
	case AF_INET6:
		return ntohs(a->in6.sin6_port);
	default:
		return 0;
	}
}

bool net_addr_eq(const struct net_addr *a, const struct net_addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	switch (a->sa.sa_family) {
	case AF_INET:
		return a->in.sin_port == b->in.sin_port &&
		       a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	case AF_INET6:
		return a->in6.sin6_port == b->in6.sin6_port &&
		       memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
	case AF_UNIX:
		return strcmp(a->un.sun_path, b->un.sun_path) == 0;
	default:
		return false;
	}
}

void net_unmap(struct net_addr *a)
{
	struct net_addr v4 = { .in.sin_family = AF_INET, .len = sizeof(struct sockaddr_in) };

	if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return;
	v4.in.sin_port = a->in6.sin6_port;
	memcpy(&v4.in.sin_addr, a->in6.sin6_addr.s6_addr + 12, 4);
	*a = v4;
}

const char *net_format_ip(char out[static NET_ADDR_LEN], const struct net_addr *a)
{
	const void *addr = a->sa.sa_family == AF_INET ? (const void *)&a->in.sin_addr
						      : (const void *)&a->in6.sin6_addr;

	if (a->sa.sa_family == AF_UNIX || !inet_ntop(a->sa.sa_family, addr, out, NET_ADDR_LEN))
		snprintf(out, NET_ADDR_LEN, "-");
	return out;
}

const char *net_format(char out[static NET_ADDR_LEN], const struct net_addr *a)
{
	char ip[NET_ADDR_LEN];

	if (a->sa.sa_family == AF_UNIX) {
		snprintf(out, NET_ADDR_LEN, "unix:%.*s", (int)sizeof(a->un.sun_path),
			 a->un.sun_path);
		return out;
	}
	net_format_ip(ip, a);
	if (a->sa.sa_family == AF_INET6)
		snprintf(out, NET_ADDR_LEN, "[%.64s]:%u", ip, net_port(a));
	else
		snprintf(out, NET_ADDR_LEN, "%.64s:%u", ip, net_port(a));
	return out;
}

static const uint8_t v4_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static void net_bytes16(uint8_t out[16], const struct net_addr *a)
{
	if (a->sa.sa_family == AF_INET) {
		memcpy(out, v4_mapped, sizeof(v4_mapped));
		memcpy(out + 12, &a->in.sin_addr, 4);
	} else {
		memcpy(out, &a->in6.sin6_addr, 16);
	}
}

int net_parse_prefix(struct net_prefix *out, struct str text)
{
	ptrdiff_t slash = str_chr(text, '/');
	struct str ip = slash < 0 ? text : str_sub(text, 0, (size_t)slash);
	struct net_addr a;
	uint64_t bits;

	if (net_parse_ip(&a, ip, 0) < 0)
		return -EINVAL;
	bits = a.sa.sa_family == AF_INET ? 32 : 128;
	if (slash >= 0) {
		uint64_t given;

		if (!str_u64(str_sub(text, (size_t)slash + 1, text.len), &given) || given > bits)
			return -EINVAL;
		bits = given;
	}
	net_bytes16(out->bytes, &a);
	out->bits = (uint8_t)(a.sa.sa_family == AF_INET ? bits + 96 : bits);
	return 0;
}

bool net_prefix_has(const struct net_prefix *p, const struct net_addr *a)
{
	uint8_t bytes[16];
	unsigned whole = p->bits / 8, rest = p->bits % 8;

	if (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6)
		return false;
	net_bytes16(bytes, a);
	return memcmp(bytes, p->bytes, whole) == 0 &&
	       (rest == 0 || ((bytes[whole] ^ p->bytes[whole]) >> (8 - rest)) == 0);
}

bool net_prefix_is_ipv4(const struct net_prefix *p)
{
	return p->bits >= 96 && memcmp(p->bytes, v4_mapped, sizeof(v4_mapped)) == 0;
}

void net_prefix_trim(struct net_prefix *p)
{
	for (unsigned i = 0; i < sizeof(p->bytes); i++) {
		unsigned kept = p->bits <= i * 8 ? 0 : MIN(p->bits - i * 8, 8U);

		p->bytes[i] &= (uint8_t)(0xff00U >> kept);
	}
}

const char *net_format_prefix(char out[static NET_ADDR_LEN], const struct net_prefix *p)
{
	bool is_v4 = net_prefix_is_ipv4(p);
	unsigned bits = is_v4 ? p->bits - 96U : p->bits;
	char ip[INET6_ADDRSTRLEN] = "";

	inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? p->bytes + 12 : p->bytes, ip, sizeof(ip));
	if (p->bits == 128)
		snprintf(out, NET_ADDR_LEN, "%s", ip);
	else
		snprintf(out, NET_ADDR_LEN, "%s/%u", ip, bits);
	return out;
}

static bool is_socket_file(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

void net_remove_socket_file(const struct net_addr *a)
{
	if (a->sa.sa_family == AF_UNIX && is_socket_file(a->un.sun_path))
		unlink(a->un.sun_path);
}

/* A socket file whose process is gone refuses connections; one that answers belongs to somebody. */
static bool unix_socket_is_stale(const struct net_addr *a)
{
	CLEANUP(cleanup_close)
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && connect(fd, &a->sa, a->len) < 0 && errno == ECONNREFUSED;
}

static const char *unix_hint(const struct net_addr *a, int error)
{
	switch (error) {
	case EADDRINUSE:
		return is_socket_file(a->un.sun_path)
			       ? "; another process listens on it"
			       : "; a file that is not a socket has that name, move it away or "
				 "choose another";
	case EACCES:
		return "; its folder must be writable for this user, or run it as root";
	case ENOENT:
		return "; make its folder first";
	default:
		return "";
	}
}

static const char *port_hint(int error)
{
	switch (error) {
	case EADDRINUSE:
		return "; another process listens there (see: ss -ltnp), stop it or choose "
		       "another port";
	case EACCES:
		return "; ports below 1024 need root or CAP_NET_BIND_SERVICE";
	case EADDRNOTAVAIL:
		return "; no interface of this host has that address (see: ip address)";
	default:
		return "";
	}
}

int net_listen(const struct net_addr *a, bool reuse_port, int backlog, struct err *err)
{
	CLEANUP(cleanup_close) int fd = -1;
	char text[NET_ADDR_LEN];
	int one = 1, zero = 0;

	net_format(text, a);
	fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot make a socket: %s", text, strerror(errno));
	if (a->sa.sa_family == AF_UNIX) {
		if (unix_socket_is_stale(a))
			net_remove_socket_file(a);
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (reuse_port)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		/* "*:80" means both families. */
		if (a->sa.sa_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
				   IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr) ? &zero : &one,
				   sizeof(one));
	}
	if (bind(fd, &a->sa, a->len) < 0) {
		int error = errno;

		return err_set(err, -error, "cannot listen on %s: %s%s", text, strerror(error),
			       a->sa.sa_family == AF_UNIX ? unix_hint(a, error) : port_hint(error));
	}
	if (listen(fd, backlog) < 0)
		return err_set(err, -errno, "cannot listen on %s: %s", text, strerror(errno));
	return TAKE_FD(fd);
}

int net_connect(const struct net_addr *a)
{
	CLEANUP(cleanup_close)
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (a->sa.sa_family != AF_UNIX)
		net_set_nodelay(fd);
	if (connect(fd, &a->sa, a->len) < 0 && errno != EINPROGRESS)
		return -errno;
	return TAKE_FD(fd);
}

int net_accept(int listen_fd, struct net_addr *peer)
{
	int fd;

	peer->len = sizeof(struct sockaddr_un);
	do {
		fd = accept4(listen_fd, &peer->sa, &peer->len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	if (peer->len < (socklen_t)sizeof(sa_family_t))
		peer->sa.sa_family = AF_UNIX;
	net_unmap(peer);
	return fd;
}

void net_set_nodelay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void net_set_patience(int fd, unsigned ms)
{
	/* Refused on what is no TCP, where it is not needed. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

int net_socket_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}
