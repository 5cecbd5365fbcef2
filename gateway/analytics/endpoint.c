/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/endpoint.h"

#include "gateway/request.h"
#include "gateway/snapshot.h"

#define HEX_ID_MIN  8
#define LONG_ID_MIN 20

bool endpoint_is_id(struct str segment)
{
	size_t digits = 0, hex = 0;

	for (size_t i = 0; i < segment.len; i++) {
		unsigned char c = (unsigned char)segment.p[i];

		digits += isdigit(c) != 0;
		hex += isxdigit(c) || c == '-';
	}
	return digits && (digits == segment.len || (hex == segment.len && hex >= HEX_ID_MIN) ||
			  segment.len >= LONG_ID_MIN);
}

struct writer {
	char *at, *end;
};

static void add(struct writer *w, struct str s)
{
	size_t n = MIN(s.len, (size_t)(w->end - w->at));

	if (n)
		w->at = mempcpy(w->at, s.p, n);
}

static void add_path(struct writer *w, struct str path)
{
	struct str rest = path, segment;
	bool is_first = true;

	while (str_split(&rest, '/', &segment)) {
		if (!is_first)
			add(w, STR("/"));
		is_first = false;
		add(w, endpoint_is_id(segment) ? STR("{id}") : segment);
	}
}

struct str endpoint_name(const struct request *r, char out[static ENDPOINT_MAX])
{
	struct writer w = { out, out + ENDPOINT_MAX };
	struct str path;

	if (!r->route)
		return STR("(no route)");
	path = r->route->conf->match.path;
	add(&w, r->method_id == METHOD_OTHER ? STR("OTHER") : r->method);
	add(&w, STR(" "));
	if (path.p && !str_ends(path, STR("/*")))
		add(&w, path);
	else
		add_path(&w, r->path);
	return str_of(out, (size_t)(w.at - out));
}
