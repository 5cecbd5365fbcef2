/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/tls_files.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"

enum file_kind { FILE_IDENTITY, FILE_TRUST, FILE_TICKETS };

/* A file as it looks from outside. All zeroes: not there. */
struct stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified, changed;
};

struct tls_file {
	struct hmap_node node;
	enum file_kind kind;
	char *path, *key; /* key: of an identity */
	struct stamp stamps[2];
	struct tls_identity *identity;
	struct tls_trust *trust;
	struct tls_ticket_keys *tickets;
};

struct tls_files {
	struct hmap map;
	struct tls_file **list;
	size_t count, cap;
	const char **paths; /* of list */
	size_t path_count;
};

static struct stamp stamp_of(const char *path)
{
	struct stat st;

	if (!path || stat(path, &st) < 0)
		return (struct stamp) { 0 };
	return (struct stamp) { st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim };
}

static bool stamp_eq(const struct stamp *a, const struct stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* --- one file ------------------------------------------------------------------------------ */

static void drop_content(struct tls_file *f)
{
	tls_identity_put(&f->identity);
	tls_trust_put(&f->trust);
	if (f->tickets)
		OPENSSL_cleanse(f->tickets, sizeof(*f->tickets));
	free(f->tickets);
	f->tickets = NULL;
}

/* Loads what the file holds now; a failure leaves what it held before. */
static int load_content(struct tls_file *f, struct err *err)
{
	struct tls_file fresh = { .kind = f->kind };
	bool is_key;

	switch (f->kind) {
	case FILE_IDENTITY:
		fresh.identity = tls_identity_load(f->path, f->key, &is_key, err);
		break;
	case FILE_TRUST:
		fresh.trust = tls_trust_load(f->path, err);
		break;
	case FILE_TICKETS:
		fresh.tickets = calloc(1, sizeof(*fresh.tickets));
		if (!fresh.tickets)
			return err_set(err, -ENOMEM, "out of memory");
		if (tls_ticket_keys_load(fresh.tickets, f->path, err) < 0)
			drop_content(&fresh);
		break;
	}
	if (!fresh.identity && !fresh.trust && !fresh.tickets)
		return -EINVAL;
	drop_content(f);
	f->identity = fresh.identity;
	f->trust = fresh.trust;
	f->tickets = fresh.tickets;
	return 0;
}

static void free_file(struct tls_file *f)
{
	drop_content(f);
	free(f->path);
	free(f->key);
	free(f);
}

/* --- the table ----------------------------------------------------------------------------- */

static struct tls_file *find(const struct tls_files *t, enum file_kind kind, struct str path,
			     struct str key)
{
	for (struct hmap_node *n = hmap_first(&t->map, hash_str(path)); n; n = hmap_next(n)) {
		struct tls_file *f = container_of(n, struct tls_file, node);

		if (f->kind == kind && str_eqz(path, f->path) &&
		    (kind != FILE_IDENTITY || str_eqz(key, f->key)))
			return f;
	}
	return NULL;
}

static bool grow(struct tls_files *t)
{
	size_t cap = t->cap ? t->cap * 2 : 16;
	struct tls_file **list = realloc(t->list, cap * sizeof(*list));
	const char **paths;

	if (!list)
		return false;
	t->list = list;
	paths = realloc(t->paths, 2 * cap * sizeof(*paths));
	if (!paths)
		return false;
	t->paths = paths;
	t->cap = cap;
	return true;
}

static int add(struct tls_files *t, enum file_kind kind, struct str path, struct str key,
	       struct err *err)
{
	struct tls_file *f;

	if (!path.p || find(t, kind, path, key))
		return 0;
	f = calloc(1, sizeof(*f));
	if (f) {
		f->kind = kind;
		f->path = strndup(path.p, path.len);
		f->key = key.p ? strndup(key.p, key.len) : NULL;
	}
	if (!f || !f->path || (key.p && !f->key) || (t->count == t->cap && !grow(t)) ||
	    hmap_insert(&t->map, &f->node, hash_str(path)) < 0) {
		if (f)
			free_file(f);
		return err_set(err, -ENOMEM, "out of memory");
	}
	t->list[t->count++] = f;
	t->paths[t->path_count++] = f->path;
	if (f->key)
		t->paths[t->path_count++] = f->key;
	/* Before reading: a change in between is then seen as one. */
	f->stamps[0] = stamp_of(f->path);
	f->stamps[1] = stamp_of(f->key);
	return load_content(f, err);
}

static int add_listener(struct tls_files *t, const struct gw_tls *tls, struct err *err)
{
	struct str none = { 0 };
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tls->certificates_count; i++)
		rc = add(t, FILE_IDENTITY, tls->certificates[i].certificate,
			 tls->certificates[i].key, err);
	if (rc == 0)
		rc = add(t, FILE_TRUST, tls->client_ca, none, err);
	for (size_t i = 0; rc == 0 && i < tls->hosts_count; i++)
		rc = add(t, FILE_TRUST, tls->hosts[i].client_ca, none, err);
	if (rc == 0)
		rc = add(t, FILE_TICKETS, tls->ticket_keys, none, err);
	return rc;
}

static int add_service(struct tls_files *t, const struct gw_service_tls *tls, struct err *err)
{
	int rc = add(t, FILE_TRUST, tls->ca, (struct str) { 0 }, err);

	return rc < 0 ? rc : add(t, FILE_IDENTITY, tls->certificate, tls->key, err);
}

struct tls_files *tls_files_new(const struct gw_conf *conf, struct err *err)
{
	struct tls_files *t = calloc(1, sizeof(*t));
	int rc = 0;

	if (!t) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	for (size_t i = 0; rc == 0 && i < conf->listeners_count; i++) {
		if (conf->listeners[i].tls)
			rc = add_listener(t, conf->listeners[i].tls, err);
	}
	for (size_t i = 0; rc == 0 && i < conf->services_count; i++) {
		if (conf->services[i].tls)
			rc = add_service(t, conf->services[i].tls, err);
	}
	if (rc < 0)
		tls_files_free(&t);
	return t;
}

void tls_files_free(struct tls_files **tp)
{
	struct tls_files *t = TAKE_PTR(*tp);

	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		free_file(t->list[i]);
	hmap_fini(&t->map);
	free(t->list);
	free(t->paths);
	free(t);
}

const struct tls_identity *tls_files_identity(const struct tls_files *t, struct str certificate,
					      struct str key)
{
	const struct tls_file *f = certificate.p ? find(t, FILE_IDENTITY, certificate, key) : NULL;

	return f ? f->identity : NULL;
}

const struct tls_trust *tls_files_trust(const struct tls_files *t, struct str path)
{
	const struct tls_file *f = path.p ? find(t, FILE_TRUST, path, path) : NULL;

	return f ? f->trust : NULL;
}

const struct tls_ticket_keys *tls_files_tickets(const struct tls_files *t, struct str path)
{
	const struct tls_file *f = path.p ? find(t, FILE_TICKETS, path, path) : NULL;

	return f ? f->tickets : NULL;
}

const char *const *tls_files_paths(const struct tls_files *t, size_t *count)
{
	*count = t->path_count;
	return t->paths;
}

bool tls_files_refresh(struct tls_files *t,
		       void (*on_file)(const char *path, const char *problem, void *arg), void *arg)
{
	bool any = false;

	for (size_t i = 0; i < t->count; i++) {
		struct tls_file *f = t->list[i];
		struct stamp now[2] = { stamp_of(f->path), stamp_of(f->key) };
		struct err err = { "" };
		int rc;

		if (stamp_eq(&now[0], &f->stamps[0]) && stamp_eq(&now[1], &f->stamps[1]))
			continue;
		f->stamps[0] = now[0];
		f->stamps[1] = now[1];
		rc = load_content(f, &err);
		on_file(f->path, rc < 0 ? err.text : NULL, arg);
		any = any || rc == 0;
	}
	return any;
}

void tls_files_each_certificate(const struct tls_files *t,
				void (*visit)(const char *path, int64_t until_s, void *arg),
				void *arg)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->list[i]->identity)
			visit(t->list[i]->path, t->list[i]->identity->until_s, arg);
	}
}
