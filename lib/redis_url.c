/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "lib/cleanup.h"
#include "lib/redis.h"

#define REDIS_PORT 6379
#define MAX_DB     1023

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False when it is too long, badly encoded, or holds a NUL, which C would end the text at. */
static bool decode(char out[static REDIS_CREDENTIAL_MAX], struct str text)
{
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (c == '%') {
			int high = i + 2 < text.len ? hex_digit(text.p[i + 1]) : -1;
			int low = i + 2 < text.len ? hex_digit(text.p[i + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = (char)(high * 16 + low);
			i += 2;
		}
		if (c == '\0' || len + 1 >= REDIS_CREDENTIAL_MAX)
			return false;
		out[len++] = c;
	}
	out[len] = '\0';
	return true;
}

static int parse_db(struct redis_url *out, struct str text, struct err *err)
{
	uint64_t db;

	if (!str_u64(text, &db) || db > MAX_DB)
		return err_set(err, -EINVAL, "the number of the database must be 0 to %d", MAX_DB);
	out->db = (unsigned)db;
	return 0;
}

/* Byte for byte the same for the same address: configurations compare it so. */
static bool parse_addr(struct net_addr *out, struct str text)
{
	struct net_addr parsed;

	if (net_parse(&parsed, text, REDIS_PORT) < 0)
		return false;
	memset(out, 0, sizeof(*out));
	memcpy(&out->un, &parsed.un, parsed.len);
	out->len = parsed.len;
	return true;
}

static int parse_unix(struct redis_url *out, struct str url, struct err *err)
{
	ptrdiff_t query = str_chr(url, '?');
	struct str path = query < 0 ? url : str_sub(url, 0, (size_t)query);
	struct str rest = query < 0 ? STR("") : str_sub(url, (size_t)query + 1, url.len);

	if (!parse_addr(&out->addr, path))
		return err_set(err, -EINVAL, "%.*s: not the path of a unix socket", STR_ARG(path));
	if (query < 0)
		return 0;
	if (!str_starts(rest, STR("db=")))
		return err_set(err, -EINVAL, "only \"?db=N\" may follow the path of a unix socket");
	return parse_db(out, str_sub(rest, 3, rest.len), err);
}

static int parse_credentials(struct redis_url *out, struct str text, struct err *err)
{
	ptrdiff_t colon = str_chr(text, ':');

	if (colon < 0 || !decode(out->user, str_sub(text, 0, (size_t)colon)) ||
	    !decode(out->password, str_sub(text, (size_t)colon + 1, text.len)))
		return err_set(
			err, -EINVAL,
			"before \"@\" there must be \"USER:PASSWORD\" or \":PASSWORD\", with "
			"%%XX for what is special in URLs");
	return 0;
}

int redis_url_parse(struct redis_url *out, struct str url, struct err *err)
{
	struct redis_url parsed;
	struct str rest, authority, db = STR("");
	ptrdiff_t at = -1, slash;
	int r;

	memset(&parsed, 0, sizeof(parsed));
	if (str_starts(url, STR("unix:"))) {
		r = parse_unix(&parsed, url, err);
		if (r == 0)
			*out = parsed;
		return r;
	}
	if (str_istarts(url, STR("rediss:")))
		return err_set(
			err, -EINVAL,
			"TLS to Redis is not spoken; use \"redis://\" over a protected path");
	if (!str_istarts(url, STR("redis://")))
		return err_set(err, -EINVAL, "must begin with \"redis://\" or be \"unix:/path\"");
	rest = str_sub(url, 8, url.len);
	/* The last one: a password may hold an "@" that somebody forgot to encode. */
	for (size_t i = 0; i < rest.len; i++) {
		if (rest.p[i] == '@')
			at = (ptrdiff_t)i;
	}
	if (at >= 0) {
		r = parse_credentials(&parsed, str_sub(rest, 0, (size_t)at), err);
		if (r < 0)
			return r;
		rest = str_sub(rest, (size_t)at + 1, rest.len);
	}
	slash = str_chr(rest, '/');
	authority = slash < 0 ? rest : str_sub(rest, 0, (size_t)slash);
	if (slash >= 0)
		db = str_sub(rest, (size_t)slash + 1, rest.len);
	if (!parse_addr(&parsed.addr, authority) || parsed.addr.sa.sa_family == AF_UNIX ||
	    net_port(&parsed.addr) == 0)
		return err_set(err, -EINVAL,
			       "%.*s: needs an IP address and a port, names are not looked up here",
			       STR_ARG(authority));
	if (db.len) {
		r = parse_db(&parsed, db, err);
		if (r < 0)
			return r;
	}
	*out = parsed;
	return 0;
}
