/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/url.h"

#include "lib/http.h"

static bool is_graphic(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f)
			return false;
	}
	return true;
}

/* The port that is written behind the host; false when it is none. */
static bool cut_port(struct url *url)
{
	ptrdiff_t colon;
	uint64_t port;

	if (url->host.p[0] == '[') {
		ptrdiff_t end = str_chr(url->host, ']');
		struct str rest = str_sub(url->host, (size_t)end + 1, url->host.len);

		url->host = str_sub(url->host, 1, (size_t)end);
		if (rest.len == 0)
			return true;
		if (rest.p[0] != ':' || !str_u64(str_sub(rest, 1, rest.len), &port))
			return false;
	} else {
		colon = str_chr(url->host, ':');
		if (colon < 0)
			return true;
		if (!str_u64(str_sub(url->host, (size_t)colon + 1, url->host.len), &port))
			return false;
		url->host.len = (size_t)colon;
	}
	url->port = (uint16_t)port;
	return port > 0 && port <= UINT16_MAX;
}

const char *url_parse(struct url *out, struct str text)
{
	struct url url = { .path = STR("/"), .query = STR("") };
	struct str rest;
	size_t len = 0;
	ptrdiff_t mark;

	if (str_istarts(text, STR("https://")))
		url.is_https = true;
	else if (!str_istarts(text, STR("http://")))
		return "must begin with \"https://\" or \"http://\"";
	if (!is_graphic(text) || str_chr(text, '#') >= 0)
		return "must be a URL without white space and \"#\"";
	rest = str_sub(text, url.is_https ? 8 : 7, text.len);
	while (len < rest.len && rest.p[len] != '/' && rest.p[len] != '?')
		len++;
	url.authority = url.host = str_sub(rest, 0, len);
	url.port = url.is_https ? 443 : 80;
	if (url.host.len == 0 || !http_is_host(url.authority) || !cut_port(&url) || !url.host.len)
		return "must have a host, and behind it at most a port";
	rest = str_sub(rest, len, rest.len);
	mark = str_chr(rest, '?');
	if (mark >= 0) {
		url.query = str_sub(rest, (size_t)mark, rest.len);
		rest.len = (size_t)mark;
	}
	if (rest.len)
		url.path = rest;
	*out = url;
	return NULL;
}
