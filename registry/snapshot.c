/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/snapshot.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "registry/record.h"

/* All numbers are little-endian. A record is its length and checksum, then the body. */
#define MAGIC      "GHREGSN1"
#define HEADER_LEN 40 /* magic, index, saved_ms, count, checksum */
#define PREFIX_LEN 12 /* u32 length of the body, u64 checksum */
#define CHECK_LEN  8

/* Against damage, not against forgery: the key is no secret. */
static uint64_t checksum(const void *p, size_t len)
{
	static const struct hash_key key = { { 0x6761746568757365ULL, 0x7265676973747279ULL } };

	return hash_sip13(&key, p, len);
}

static void put_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_append(b, &v, sizeof(v));
}

static uint32_t get_u32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static void set_u32(char *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static uint64_t get_u64(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

/* --- writing --------------------------------------------------------------------------------- */

void reg_snapshot_encode(const struct reg_store *store, uint64_t wall_ms, struct buf *out)
{
	buf_append(out, MAGIC, 8);
	put_u64(out, reg_store_index(store));
	put_u64(out, wall_ms);
	put_u64(out, reg_store_stats(store)->instances);
	put_u64(out, 0);
	for (const struct reg_entry *e = reg_store_change_after(store, 0); e;
	     e = reg_store_next_change(store, e)) {
		static const char prefix[PREFIX_LEN];
		struct reg_instance i;
		size_t at;

		if (reg_entry_change(e) == REG_DELETE)
			continue;
		reg_entry_get(e, &i);
		at = buf_len(out);
		buf_append(out, prefix, PREFIX_LEN);
		reg_record_encode(str_from(reg_entry_app(e)), &i, out);
		if (!buf_failed(out))
			set_u32(buf_data(out) + at, (uint32_t)(buf_len(out) - at - PREFIX_LEN));
	}
}

void reg_snapshot_seal(struct buf *encoded)
{
	char *at = buf_data(encoded);
	char *end = at + buf_len(encoded);
	uint64_t check = htole64(checksum(at, HEADER_LEN - CHECK_LEN));

	memcpy(at + HEADER_LEN - CHECK_LEN, &check, sizeof(check));
	for (at += HEADER_LEN; at < end;) {
		uint32_t len = get_u32(at);

		check = htole64(checksum(at + PREFIX_LEN, len));
		memcpy(at + 4, &check, sizeof(check));
		at += PREFIX_LEN + len;
	}
}

/* --- reading --------------------------------------------------------------------------------- */

int reg_snapshot_decode(struct str bytes, struct reg_snapshot_info *info,
			void (*on_instance)(struct str app, const struct reg_instance *i,
					    void *arg),
			void *arg, struct err *err)
{
	struct reg_snapshot_info got = { 0 };
	struct str rest;

	if (bytes.len < HEADER_LEN)
		return err_set(err, -EBADMSG, "it is cut off within the header");
	if (memcmp(bytes.p, MAGIC, 8) != 0)
		return err_set(err, -EBADMSG, "it is no registry snapshot");
	if (get_u64(bytes.p + HEADER_LEN - CHECK_LEN) != checksum(bytes.p, HEADER_LEN - CHECK_LEN))
		return err_set(err, -EBADMSG, "the header is damaged");
	got.index = get_u64(bytes.p + 8);
	got.saved_ms = get_u64(bytes.p + 16);
	got.count = get_u64(bytes.p + 24);
	rest = str_sub(bytes, HEADER_LEN, bytes.len);
	while (got.read < got.count && rest.len >= PREFIX_LEN) {
		uint32_t len = get_u32(rest.p);
		uint64_t check = get_u64(rest.p + 4);
		struct reg_instance i;
		struct str body, app;

		if (len > rest.len - PREFIX_LEN)
			break;
		body = str_sub(rest, PREFIX_LEN, PREFIX_LEN + len);
		if (checksum(body.p, body.len) != check || !reg_record_decode(body, &app, &i))
			break;
		on_instance(app, &i, arg);
		got.read++;
		rest = str_sub(rest, PREFIX_LEN + len, rest.len);
	}
	*info = got;
	return 0;
}

/* --- files ----------------------------------------------------------------------------------- */

static int write_all(int fd, struct str bytes)
{
	while (bytes.len) {
		ssize_t n = write(fd, bytes.p, bytes.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes = str_sub(bytes, (size_t)n, bytes.len);
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Makes the rename itself last. */
static int sync_folder(const char *path)
{
	CLEANUP(cleanup_free) char *folder = strdup(path);
	CLEANUP(cleanup_close) int fd = -1;
	char *slash;

	if (!folder)
		return -ENOMEM;
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static const char *hint_for(int error)
{
	switch (error) {
	case -ENOENT:
		return "; make its folder first";
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return "; the folder must be writable by the registry's user";
	case -ENOSPC:
	case -EDQUOT:
		return "; make room on that disk";
	default:
		return "";
	}
}

int reg_snapshot_save(const char *path, struct str sealed, struct err *err)
{
	CLEANUP(cleanup_free) char *fresh = NULL;
	CLEANUP(cleanup_close) int fd = -1;
	int r;

	if (asprintf(&fresh, "%s.new", path) < 0) {
		fresh = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : write_all(fd, sealed);
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r == 0)
		r = sync_folder(path);
	else if (fd >= 0)
		unlink(fresh);
	if (r < 0)
		return err_set(err, r, "cannot write %s: %s%s", path, strerror(-r), hint_for(r));
	return 0;
}

int reg_snapshot_load(const char *path, struct buf *out, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_set(err, -errno, "cannot read %s: %s%s", path, strerror(errno),
			       errno == EACCES ? "; it must be readable by the registry's user"
					       : "");
	for (;;) {
		char *at = buf_reserve(out, 65536);
		ssize_t n = at ? read(fd, at, buf_room(out)) : -1;

		if (!at)
			return err_set(err, -ENOMEM, "%s: out of memory", path);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
		if (n == 0)
			return 0;
		buf_commit(out, (size_t)n);
	}
}
