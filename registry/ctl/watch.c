/* SPDX-License-Identifier: Apache-2.0 */
/* registryctl watch: changes as they happen. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/sse.h"
#include "registry/ctl/ctl.h"

struct watching {
	const struct ctl *o;
	struct sse sse;
	int result;
};

static void print_change(const char *event, const char *app, const json_t *instance)
{
	char address[96], clock[16];
	time_t now = time(NULL);
	struct tm tm;

	ctl_address(instance, address, sizeof(address));
	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	printf("%s  %-6s  %s  %s  %s  %s\n", clock, event, app, ctl_text(instance, "id"), address,
	       ctl_text(instance, "status"));
}

static bool watch_on_event(struct str event, struct str id, struct str data, void *arg)
{
	const struct watching *w = arg;
	CLEANUP(ctl_cleanup_json) json_t *json = json_loadb(data.p, data.len, 0, NULL);
	const json_t *apps = json_object_get(json, "apps");
	char name[32];

	(void)id;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(event.len, sizeof(name) - 1), event.p);
	if (w->o->wants_json) {
		printf("{\"event\":\"%s\",\"data\":%.*s}\n", name, STR_ARG(data));
	} else if (strcmp(name, "reset") == 0) {
		for (size_t a = 0; a < json_array_size(apps); a++) {
			const json_t *app = json_array_get(apps, a);
			const json_t *instances = json_object_get(app, "instances");

			for (size_t i = 0; i < json_array_size(instances); i++)
				print_change("has", ctl_text(app, "app"),
					     json_array_get(instances, i));
		}
	} else {
		print_change(name, ctl_text(json, "app"), json);
	}
	fflush(stdout);
	return true;
}

static void watch_on_data(struct http_call *call, struct str data, void *arg)
{
	struct watching *w = arg;

	(void)call;
	if (sse_feed(&w->sse, data, watch_on_event, w) < 0)
		w->result = FAILED;
}

int ctl_watch(const struct ctl *o, int argc, char **argv)
{
	struct watching w = { .o = o };
	struct http_answer answer = { 0 };
	struct err err = { "" };
	struct http_request_spec spec;
	struct buf path, headers;
	int r;

	buf_init(&path, 0);
	buf_addz(&path, "/v1/watch?apps=");
	for (int i = 0; i < argc; i++) {
		if (i)
			buf_putc(&path, ',');
		http_encode(&path, str_from(argv[i]));
	}
	sse_init(&w.sse, CTL_BODY_MAX);
	spec = ctl_spec(o, &headers);
	spec.target[1] = buf_str(&path);
	spec.idle_timeout_ms = 25000;
	spec.on_data = watch_on_data;
	spec.arg = &w;
	r = http_fetch(&answer, &spec, &err);
	buf_fini(&headers);
	if (r < 0)
		fprintf(stderr, "registryctl: %s: %s\n", o->url, err.text);
	else if (answer.status != 200)
		ctl_fail_with(o, answer.status, buf_str(&answer.body));
	else
		ctl_fail("the registry ended the stream");
	if (r == 0)
		http_answer_fini(&answer);
	sse_fini(&w.sse);
	buf_fini(&path);
	return FAILED;
}
