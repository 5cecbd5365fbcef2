/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/check.h"

#include <stdio.h>

#include "gateway/snapshot.h"
#include "gateway/tls_files.h"
#include "gateway/worker.h"
#include "lib/json.h"

static void write_list(struct json_writer *w, const char *key, const struct conf_errors *errors,
		       bool is_warning)
{
	json_open(w, key, '[');
	for (const struct conf_error *e = errors->first; e; e = e->next) {
		if (e->is_warning != is_warning)
			continue;
		json_open(w, NULL, '{');
		json_addz(w, "path", e->path);
		json_addz(w, "text", e->text);
		json_close(w, '}');
	}
	json_close(w, ']');
}

static void print_json(const struct conf_errors *errors)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 0);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	json_add_bool(&w, "ok", errors->count == 0);
	json_add_u64(&w, "errors", errors->count);
	write_list(&w, "mistakes", errors, false);
	write_list(&w, "warnings", errors, true);
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

static void print_text(const struct conf_errors *errors, const char *file,
		       const struct snapshot *snapshot)
{
	struct buf text;

	buf_init(&text, 0);
	conf_errors_write(errors, file, &text);
	fwrite(buf_data(&text), 1, buf_len(&text), stderr);
	buf_fini(&text);
	if (errors->count == 0)
		printf("%s: ok, %zu routes, %zu services\n", file, snapshot->route_count,
		       snapshot->conf.services_count);
}

int ctl_check(const char *file, bool is_json)
{
	struct conf_errors errors = { 0 };
	struct snapshot *snapshot = NULL;
	struct worker_conf *conf = NULL;
	struct tls_files *files;
	struct err err;
	int status;

	if (snapshot_load(&snapshot, file, &errors) == 0) {
		files = tls_files_new(&snapshot->conf, &err);
		if (files)
			conf = worker_conf_new(snapshot, files, &err);
		tls_files_free(&files);
		if (conf)
			worker_conf_put(conf);
		else
			conf_errors_add(&errors, "listeners", "%s", err.text);
	}
	if (is_json)
		print_json(&errors);
	else
		print_text(&errors, file, snapshot);
	status = errors.count > 0;
	conf_errors_fini(&errors);
	snapshot_put(&snapshot);
	return status;
}
