/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/record.h"

#include <endian.h>
#include <string.h>

#include "registry/check.h"

/* All numbers are little-endian. The texts stand behind, one after the other; then, if there is a
 * check, its length in one byte and its text; Eureka's, if there is one, is what is left. */
#define FIXED_LEN  37
#define HAS_EUREKA 1
#define HAS_CHECK  2

static void put_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	buf_append(b, &v, sizeof(v));
}

static void put_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_append(b, &v, sizeof(v));
}

static void put_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_append(b, &v, sizeof(v));
}

static uint16_t get_u16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static uint32_t get_u32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get_u64(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void reg_record_encode(struct str app, const struct reg_instance *i, struct buf *out)
{
	put_u64(out, i->index);
	put_u64(out, i->registered_ms);
	put_u32(out, i->lease_s);
	put_u16(out, i->port);
	put_u16(out, i->weight);
	buf_putc(out, (char)i->is_secure);
	buf_putc(out, (char)i->status);
	buf_putc(out, (char)i->override);
	put_u16(out, (uint16_t)app.len);
	put_u16(out, (uint16_t)i->id.len);
	buf_putc(out, (char)i->address.len);
	buf_putc(out, (char)i->zone.len);
	buf_putc(out, (char)i->version.len);
	put_u16(out, (uint16_t)i->metadata.len);
	buf_putc(out, (char)((i->eureka.len ? HAS_EUREKA : 0) | (i->check.len ? HAS_CHECK : 0)));
	buf_add(out, app);
	buf_add(out, i->id);
	buf_add(out, i->address);
	buf_add(out, i->zone);
	buf_add(out, i->version);
	buf_add(out, i->metadata);
	if (i->check.len) {
		buf_putc(out, (char)i->check.len);
		buf_add(out, i->check);
	}
	buf_add(out, i->eureka);
}

/* Pairs of NUL-terminated texts, and nothing behind. */
static bool is_metadata(struct str s)
{
	size_t nuls = 0;

	for (size_t i = 0; i < s.len; i++)
		nuls += s.p[i] == '\0';
	return s.len == 0 || (nuls % 2 == 0 && s.p[s.len - 1] == '\0');
}

static struct str take(struct str *rest, size_t len)
{
	struct str s = str_sub(*rest, 0, len);

	*rest = str_sub(*rest, len, rest->len);
	return s;
}

/* False when it is cut off, or makes no sense. */
static bool take_check(struct str *rest, struct str *out)
{
	struct reg_check check;
	size_t len = rest->len ? (unsigned char)rest->p[0] : 0;

	if (!len || rest->len < len + 1)
		return false;
	*rest = str_sub(*rest, 1, rest->len);
	*out = take(rest, len);
	return reg_check_parse(&check, *out);
}

/* A checksum proves that we read what was written, not that it makes sense to this version. */
bool reg_record_decode(struct str body, struct str *app, struct reg_instance *i)
{
	const char *p = body.p;
	char name[REG_APP_MAX + 1];
	struct str rest;
	struct net_addr addr;
	size_t app_len, id_len, address_len, zone_len, version_len, metadata_len, text_len;
	bool has_eureka;

	if (body.len < FIXED_LEN)
		return false;
	*i = (struct reg_instance) {
		.index = get_u64(p),
		.registered_ms = get_u64(p + 8),
		.lease_s = get_u32(p + 16),
		.port = get_u16(p + 20),
		.weight = get_u16(p + 22),
		.is_secure = p[24] != 0,
		.status = (unsigned char)p[25],
		.override = (unsigned char)p[26],
	};
	app_len = get_u16(p + 27);
	id_len = get_u16(p + 29);
	address_len = (unsigned char)p[31];
	zone_len = (unsigned char)p[32];
	version_len = (unsigned char)p[33];
	metadata_len = get_u16(p + 34);
	has_eureka = p[36] & HAS_EUREKA;
	rest = str_sub(body, FIXED_LEN, body.len);
	text_len = app_len + id_len + address_len + zone_len + version_len + metadata_len;
	if (text_len > rest.len)
		return false;
	*app = take(&rest, app_len);
	i->id = take(&rest, id_len);
	i->address = take(&rest, address_len);
	i->zone = take(&rest, zone_len);
	i->version = take(&rest, version_len);
	i->metadata = take(&rest, metadata_len);
	if ((p[36] & HAS_CHECK) && !take_check(&rest, &i->check))
		return false;
	if (has_eureka != (rest.len > 0))
		return false;
	i->eureka = rest;
	return reg_app_name(*app, name) && str_eqz(*app, name) && reg_is_id(i->id) &&
	       zone_len <= REG_TEXT_MAX && version_len <= REG_TEXT_MAX &&
	       metadata_len <= REG_METADATA_BYTES && rest.len <= REG_EUREKA_BYTES &&
	       is_metadata(i->metadata) && i->port > 0 && i->weight > 0 &&
	       i->weight <= REG_WEIGHT_MAX && i->lease_s > 0 && i->lease_s <= REG_LEASE_MAX_S &&
	       i->status > REG_NO_STATUS && i->status < REG_STATUSES &&
	       i->override < REG_STATUSES && net_parse_ip(&addr, i->address, i->port) == 0;
}
