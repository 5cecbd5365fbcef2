/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a table of routes costs: time per look-up, time to build it and memory, by the number of
 * routes and by what tells them apart. As a table, or with --json.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/routing/router.h"
#include "lib/cleanup.h"
#include "lib/clock.h"

#define RUNS      9
#define LOOK_UPS  20000UL
#define COUNT_MAX 10000
#define QUESTIONS 256 /* asked in turns, so that no branch predictor knows the answer */

enum kind { KIND_PREFIX, KIND_TEMPLATE, KIND_HOST, KIND_HEADER, KIND_QUERY, KINDS };

static const char *const kind_names[KINDS] = { "prefixes", "templates", "hosts", "headers",
					       "queries" };
static const size_t counts[] = { 1, 100, COUNT_MAX };

static struct router_route routes[COUNT_MAX];
static char texts[COUNT_MAX][96];
static struct str hosts[COUNT_MAX];
static struct conf_pair pairs[COUNT_MAX];

struct question {
	char host[48], path[96], value[32], query[48];
	struct http_field fields[8];
	struct router_request request;
	size_t want;
};
static struct question questions[QUESTIONS];

static void make_route(enum kind kind, size_t i)
{
	struct router_route *r = &routes[i];
	char *text = texts[i];

	*r = (struct router_route) { .path = STR("/api/items/{id}") };
	switch (kind) {
	case KIND_PREFIX:
		snprintf(text, sizeof(texts[i]), "/api/v%zu/service%zu/*", i % 3, i);
		r->path = str_from(text);
		break;
	case KIND_TEMPLATE:
		snprintf(text, sizeof(texts[i]), "/api/{tenant}/service%zu/{id}/parts", i);
		r->path = str_from(text);
		break;
	case KIND_HOST:
		snprintf(text, sizeof(texts[i]), "%st%zu.example.com", i % 2 ? "*." : "", i);
		hosts[i] = str_from(text);
		r->hosts = &hosts[i];
		r->host_count = 1;
		break;
	case KIND_HEADER:
	case KIND_QUERY:
	case KINDS:
	default:
		snprintf(text, sizeof(texts[i]), "t%zu", i);
		pairs[i] = (struct conf_pair) { STR("X-Tenant"), str_from(text) };
		if (kind == KIND_HEADER) {
			r->headers = &pairs[i];
			r->header_count = 1;
		} else {
			r->queries = &pairs[i];
			r->query_count = 1;
		}
	}
}

static void make_question(struct question *q, enum kind kind, size_t i)
{
	static const struct http_field usual[] = {
		{ STR("Host"), STR("api.example.com"), HTTP_HOST },
		{ STR("User-Agent"), STR("bench/1.0"), HTTP_USER_AGENT },
		{ STR("Accept"), STR("*/*"), HTTP_ACCEPT },
		{ STR("Accept-Encoding"), STR("gzip"), HTTP_ACCEPT_ENCODING },
		{ STR("Cookie"), STR("a=1; b=2"), HTTP_COOKIE },
	};

	*q = (struct question) { .host = "api.example.com", .path = "/api/items/42", .want = i };
	if (kind == KIND_PREFIX)
		snprintf(q->path, sizeof(q->path), "/api/v%zu/service%zu/x", i % 3, i);
	else if (kind == KIND_TEMPLATE)
		snprintf(q->path, sizeof(q->path), "/api/acme/service%zu/42/parts", i);
	else if (kind == KIND_HOST)
		snprintf(q->host, sizeof(q->host), "%st%zu.example.com", i % 2 ? "www." : "", i);
	snprintf(q->value, sizeof(q->value), "t%zu", i);
	snprintf(q->query, sizeof(q->query), "a=1&X-Tenant=t%zu", i);
	memcpy(q->fields, usual, sizeof(usual));
	q->request = (struct router_request) { .host = str_from(q->host),
					       .path = str_from(q->path),
					       .method = METHOD_GET,
					       .fields = q->fields,
					       .field_count = ARRAY_SIZE(usual) };
	if (kind == KIND_HEADER)
		q->fields[q->request.field_count++] =
			(struct http_field) { STR("x-tenant"), str_from(q->value), HTTP_OTHER };
	if (kind == KIND_QUERY)
		q->request.query = str_from(q->query);
}

static uint64_t time_look_ups(const struct router *r)
{
	uint64_t best = UINT64_MAX;

	for (int run = 0; run < RUNS; run++) {
		uint64_t begin = clock_mono_ns(), took;

		for (size_t i = 0; i < LOOK_UPS; i++) {
			const struct question *q = &questions[i % QUESTIONS];
			struct router_match m;

			if (router_match(r, &q->request, &m) != ROUTER_FOUND ||
			    m.route != q->want) {
				fprintf(stderr, "routes: the wrong route\n");
				exit(1);
			}
		}
		took = clock_mono_ns() - begin;
		best = MIN(best, took);
	}
	return best / LOOK_UPS;
}

struct figures {
	uint64_t ns, build_us;
};

static struct figures measure(enum kind kind, size_t count)
{
	struct figures figures = { .build_us = UINT64_MAX };
	struct router *r = NULL;
	struct err err;

	for (size_t i = 0; i < count; i++)
		make_route(kind, i);
	for (size_t i = 0; i < QUESTIONS; i++)
		make_question(&questions[i], kind, i * 7919 % count);
	for (int run = 0; run < RUNS; run++) {
		uint64_t begin;

		router_free(&r);
		begin = clock_mono_ns();
		if (router_new(&r, routes, count, &err) < 0) {
			fprintf(stderr, "routes: %s\n", err.text);
			exit(1);
		}
		figures.build_us = MIN(figures.build_us, (clock_mono_ns() - begin) / 1000);
	}
	figures.ns = time_look_ups(r);
	router_free(&r);
	return figures;
}

int main(int argc, char **argv)
{
	bool as_json = argc > 1 && strcmp(argv[1], "--json") == 0;
	const char *comma = "[";

	if (!as_json)
		printf("%-10s %8s %14s %10s\n", "apart by", "routes", "ns a look-up", "build us");
	for (enum kind kind = 0; kind < KINDS; kind++) {
		for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
			struct figures f = measure(kind, counts[i]);

			if (as_json) {
				printf("%s{\"kind\":\"%s\",\"routes\":%zu,\"ns\":%" PRIu64
				       ",\"build_us\":%" PRIu64 "}",
				       comma, kind_names[kind], counts[i], f.ns, f.build_us);
				comma = ",\n";
			} else {
				printf("%-10s %8zu %14" PRIu64 " %10" PRIu64 "\n", kind_names[kind],
				       counts[i], f.ns, f.build_us);
			}
		}
	}
	if (as_json)
		printf("]\n");
	return 0;
}
