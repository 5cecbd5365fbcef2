/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/revocations.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/gateway.h"
#include "gateway/identity/revocation_file.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/file_watch.h"
#include "lib/http_server.h"
#include "lib/log.h"
#include "lib/metrics.h"

#define CHANGE_DELAY_MS 50
#define POLL_MS         30000 /* for file systems that tell nothing */
#define EXPIRE_MS       60000
#define LISTED_MAX      10000

struct revocations {
	struct gateway *gateway;
	struct file_watch *watch;
	struct loop_timer timer;
	uint64_t round;
	dev_t state_dev; /* the state file, as far as it is known */
	ino_t state_ino;
	off_t state_len;
	uint64_t reloads_failed;
};

static int64_t now_s(void)
{
	return (int64_t)(clock_wall_ms() / MSEC_PER_SEC);
}

static const struct gw_revocations *conf_of(const struct revocations *v)
{
	return &v->gateway->snapshot->conf.revocations;
}

/* --- the operator's file ------------------------------------------------------------------- */

static int add_of_file(const struct revocation *r, void *arg)
{
	struct revocations *v = arg;
	struct revocation one = *r;

	one.source = REVOKED_BY_FILE;
	one.round = v->round;
	return one.until_s <= now_s() ? 0 : revoked_add(v->gateway->revoked, &one);
}

static int read_file(struct revocations *v, struct err *err)
{
	int rc = 0;

	v->round++;
	if (conf_of(v)->file.p)
		rc = revocation_file_load(conf_of(v)->file.p, add_of_file, v, err);
	/* Of a file that cannot be used nothing was added, and everything before stays. */
	if (rc == 0)
		revoked_keep(v->gateway->revoked, REVOKED_BY_FILE, v->round);
	return rc;
}

/* --- the state file: a line for each word --------------------------------------------------- */

static void take_line(struct revocations *v, struct str line)
{
	json_t *json = json_loadb(line.p, line.len, JSON_REJECT_DUPLICATES, NULL);
	struct revocation r;

	/* A line cut by a crash was never answered. */
	if (json && !revocation_read(json, &r)) {
		r.source = REVOKED_BY_ADMIN;
		r.round = v->round;
		if (json_is_true(json_object_get(json, "removed")))
			revoked_remove(v->gateway->revoked, &r);
		else if (r.until_s > now_s())
			revoked_add(v->gateway->revoked, &r);
	}
	json_decref(json);
}

static int read_all(int fd, struct buf *out)
{
	ssize_t n;

	do {
		char *room = buf_reserve(out, 65536);

		if (!room)
			return -EFBIG;
		n = read(fd, room, 65536);
		buf_commit(out, n > 0 ? (size_t)n : 0);
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

static bool is_known(const struct revocations *v, const struct stat *st)
{
	return st->st_dev == v->state_dev && st->st_ino == v->state_ino &&
	       st->st_size == v->state_len;
}

static void know(struct revocations *v, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return;
	v->state_dev = st.st_dev;
	v->state_ino = st.st_ino;
	v->state_len = st.st_size;
}

/* As another process left it: the one before an upgrade goes on writing for a while. */
static int read_state(struct revocations *v, struct err *err)
{
	const char *path = conf_of(v)->state.p;
	CLEANUP(cleanup_close) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	CLEANUP(buf_fini) struct buf text;
	struct str rest, line;
	struct stat st;
	int rc;

	buf_init(&text, REVOCATION_FILE_MAX);
	if (fd < 0)
		return !path || errno == ENOENT
			       ? 0
			       : err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && is_known(v, &st))
		return 0;
	know(v, fd);
	rc = read_all(fd, &text);
	if (rc < 0)
		return err_set(err, rc, "cannot read %s: %s", path, strerror(-rc));
	v->round++;
	rest = buf_str(&text);
	while (str_split(&rest, '\n', &line))
		take_line(v, line);
	revoked_keep(v->gateway->revoked, REVOKED_BY_ADMIN, v->round);
	return 0;
}

static void write_line(const struct revocation *r, bool is_removed, struct buf *out)
{
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	revocation_write(r, &w);
	if (is_removed)
		json_add_bool(&w, "removed", true);
	json_close(&w, '}');
	buf_putc(out, '\n');
}

static int append(struct revocations *v, const struct revocation *r, bool is_removed,
		  struct err *err)
{
	const char *path = conf_of(v)->state.p;
	CLEANUP(cleanup_close) int fd = -1;
	CLEANUP(buf_fini) struct buf line;
	bool was_known;
	struct stat st;

	buf_init(&line, 0);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -EIO, "cannot write %s: %s", path, strerror(errno));
	was_known = is_known(v, &st);
	write_line(r, is_removed, &line);
	if (write(fd, buf_data(&line), buf_len(&line)) != (ssize_t)buf_len(&line) ||
	    fdatasync(fd) < 0) {
		err_set(err, -EIO, "cannot write %s: %s", path, strerror(errno));
		/* Half a line would spoil the next one. */
		if (was_known && ftruncate(fd, st.st_size) == 0)
			know(v, fd);
		return -EIO;
	}
	/* What another process wrote just now is still to be read, with this. */
	if (was_known)
		know(v, fd);
	return 0;
}

static void add_line(const struct revocation *r, void *arg)
{
	if (r->source == REVOKED_BY_ADMIN)
		write_line(r, false, arg);
}

/* Without what was taken back or is over. */
static int compact(struct revocations *v, struct err *err)
{
	const char *path = conf_of(v)->state.p;
	CLEANUP(buf_fini) struct buf text;
	char *aside = NULL;
	int fd, rc = 0;

	buf_init(&text, REVOCATION_FILE_MAX);
	if (!path)
		return 0;
	if (asprintf(&aside, "%s.new", path) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	revoked_each(v->gateway->revoked, add_line, &text);
	fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && !buf_failed(&text) &&
	    write(fd, buf_str(&text).p, buf_len(&text)) == (ssize_t)buf_len(&text) &&
	    fsync(fd) == 0 && rename(aside, path) == 0)
		know(v, fd);
	else
		rc = err_set(err, -EIO, "cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(aside);
	return rc;
}

/* What is in force already, so that it outlives this process. */
static int write_down(struct revocations *v, const struct revocation *r, bool is_removed,
		      struct err *err)
{
	const char *path = conf_of(v)->state.p;

	if (!path)
		return 0;
	/* Somebody took the file away, and with it all that was written before. */
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return compact(v, err);
	return append(v, r, is_removed, err);
}

/* --- changes ------------------------------------------------------------------------------- */

static void watch(struct revocations *v)
{
	const char *paths[2];
	size_t count = 0;

	if (conf_of(v)->file.p)
		paths[count++] = conf_of(v)->file.p;
	if (conf_of(v)->state.p)
		paths[count++] = conf_of(v)->state.p;
	if (v->watch && file_watch_set(v->watch, paths, count) < 0)
		log_warn("revocations: cannot watch all files, looking every %d s", POLL_MS / 1000);
}

void revocations_update(struct revocations *v)
{
	struct err err;

	/* First the watch: what changes after it is seen by it. */
	watch(v);
	if (read_file(v, &err) < 0) {
		v->reloads_failed++;
		log_error("revocations: the file cannot be used, going on with what was there "
			  "before: %s",
			  err.text);
	}
	if (read_state(v, &err) < 0)
		log_error("revocations: %s", err.text);
}

void revocations_go_live(struct revocations *v)
{
	struct err err;

	revocations_update(v);
	if (compact(v, &err) < 0)
		log_warn("revocations: %s", err.text);
}

static void on_change(void *arg)
{
	revocations_update(arg);
}

static void on_timer(struct loop_timer *timer)
{
	struct revocations *v = container_of(timer, struct revocations, timer);

	revoked_expire(v->gateway->revoked, now_s());
	loop_timer_start(v->gateway->loop, timer, EXPIRE_MS);
}

struct revocations *revocations_new(struct gateway *g, struct err *err)
{
	struct revocations *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	v->gateway = g;
	v->timer.on_fire = on_timer;
	if (read_file(v, err) < 0 || read_state(v, err) < 0) {
		revocations_free(&v);
		return NULL;
	}
	v->watch = file_watch_new(g->loop, CHANGE_DELAY_MS, POLL_MS, on_change, v);
	watch(v);
	loop_timer_start(g->loop, &v->timer, EXPIRE_MS);
	return v;
}

void revocations_free(struct revocations **vp)
{
	struct revocations *v = *vp;

	*vp = NULL;
	if (!v)
		return;
	loop_timer_stop(v->gateway->loop, &v->timer);
	file_watch_free(&v->watch);
	free(v);
}

/* --- the admin socket ---------------------------------------------------------------------- */

static bool knows_auth(const struct gateway *g, struct str name)
{
	for (size_t i = 0; i < g->snapshot->auth_count; i++) {
		if (str_eq(g->snapshot->auths[i].conf->name, name))
			return true;
	}
	return name.len == 0;
}

/* The body as a revocation, whose texts are the JSON's; NULL after an answer. */
static json_t *read_body(struct http_request *req, const struct gateway *g, struct revocation *out)
{
	json_t *json = json_loadb(req->body.p ? req->body.p : "", req->body.len,
				  JSON_REJECT_DUPLICATES, NULL);
	const char *problem = json ? revocation_read(json, out) : "must be JSON";

	if (!problem && !knows_auth(g, out->auth))
		problem = "names an \"auth\" that is not configured";
	if (!problem) {
		out->source = REVOKED_BY_ADMIN;
		return json;
	}
	http_problem(req, 400, "the revocation %s", problem);
	json_decref(json);
	return NULL;
}

/* What another process wrote is read before a change, not after it: reading ends whatever is not in
 * the file, and a change is in force before it is there. */
static void catch_up(struct revocations *v)
{
	struct err err;

	if (read_state(v, &err) < 0)
		log_error("revocations: %s", err.text);
}

static void respond(struct http_request *req, const struct revocations *v, const char *done)
{
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_add_bool(&w, done, true);
	json_add_u64(&w, "count", revoked_count(v->gateway->revoked, REVOKED_BY_ADMIN));
	json_add_bool(&w, "survives_restart", conf_of(v)->state.p != NULL);
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}

void revocations_post(struct http_request *req, struct gateway *g)
{
	struct revocation r;
	json_t *json = read_body(req, g, &r);
	struct err err = { "" };
	int rc;

	if (!json)
		return;
	catch_up(g->revocations);
	r.round = g->revocations->round;
	/* In force first: what cannot be written down is told, and counts all the same. */
	rc = revoked_add(g->revoked, &r);
	if (rc == 0)
		rc = write_down(g->revocations, &r, false, &err);
	if (rc == -ENOSPC)
		http_problem(req, 507,
			     "there are %d revocations already: give the next ones an "
			     "end (until), or put them into revocations.file",
			     REVOKED_MAX);
	else if (rc < 0)
		http_problem(req, 500, "%s", err.text[0] ? err.text : "out of memory");
	else
		respond(req, g->revocations, "revoked");
	json_decref(json);
}

void revocations_remove(struct http_request *req, struct gateway *g)
{
	struct revocation r;
	json_t *json = read_body(req, g, &r);
	struct err err;

	if (!json)
		return;
	catch_up(g->revocations);
	if (!revoked_remove(g->revoked, &r))
		http_problem(req, 404,
			     "no such revocation by `gatewayctl revoke`; those of "
			     "revocations.file end in the file");
	else if (write_down(g->revocations, &r, true, &err) < 0)
		http_problem(req, 500, "%s", err.text);
	else
		respond(req, g->revocations, "unrevoked");
	json_decref(json);
}

struct listing {
	struct json_writer *w;
	size_t left;
};

static void add_listed(const struct revocation *r, void *arg)
{
	struct listing *l = arg;

	if (l->left == 0)
		return;
	l->left--;
	json_open(l->w, NULL, '{');
	revocation_write(r, l->w);
	json_addz(l->w, "source", r->source == REVOKED_BY_FILE ? "file" : "admin");
	json_close(l->w, '}');
}

void revocations_list(struct http_request *req, struct gateway *g)
{
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);
	struct listing l = { &w, LISTED_MAX };

	json_open(&w, NULL, '{');
	json_add_u64(&w, "count",
		     revoked_count(g->revoked, REVOKED_BY_FILE) +
			     revoked_count(g->revoked, REVOKED_BY_ADMIN));
	json_open(&w, "revoked", '[');
	revoked_each(g->revoked, add_listed, &l);
	json_close(&w, ']');
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}

void revocations_write_metrics(const struct revocations *v, struct buf *out)
{
	metrics_family(out, "gatehouse_gateway_revocations", "gauge",
		       "Revocations in force, by where they come from.");
	metrics_u64(out, "gatehouse_gateway_revocations", METRICS_LABELS({ "source", STR("file") }),
		    revoked_count(v->gateway->revoked, REVOKED_BY_FILE));
	metrics_u64(out, "gatehouse_gateway_revocations",
		    METRICS_LABELS({ "source", STR("admin") }),
		    revoked_count(v->gateway->revoked, REVOKED_BY_ADMIN));
	metrics_family(out, "gatehouse_gateway_revocation_file_failures_total", "counter",
		       "Times the file had become unusable, so the former one stayed.");
	metrics_u64(out, "gatehouse_gateway_revocation_file_failures_total", NULL,
		    v->reloads_failed);
}
