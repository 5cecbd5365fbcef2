/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/nlbctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/http_client.h"

__attribute__((format(printf, 1, 0))) static void say(const char *fmt, va_list ap)
{
	fprintf(stderr, "nlbctl: ");
	vfprintf(stderr, fmt, ap);
}

int nlbctl_fail(const char *text)
{
	return nlbctl_failf("%s", text);
}

int nlbctl_failf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return FAILED;
}

int nlbctl_misuse(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fprintf(stderr, " (nlbctl --help)\n");
	return USAGE;
}

/* --- asking nlbd ------------------------------------------------------------------------------
 */

/* With thousands of gateways a list is long, and a reload that builds every ring anew takes a
 * while. */
#define ANSWER_MAX (64U << 20)
#define ANSWER_MS  60000

static int fetch(const struct nlbctl_options *o, enum http_method method, const char *path,
		 const char *query, struct http_answer *answer, struct err *err)
{
	struct http_request_spec spec = { .method = method,
					  .target = { str_from(path), str_from(query) },
					  .max_body = ANSWER_MAX,
					  .response_timeout_ms = ANSWER_MS };
	struct net_addr addr;

	if (net_parse_unix(&addr, str_from(o->socket)) != 0)
		return err_set(err, -EINVAL, "\"%s\" is not the path of a socket", o->socket);
	spec.addr = &addr;
	return http_fetch(answer, &spec, err);
}

static json_t *parse(const struct http_answer *answer)
{
	return json_loadb(buf_data(&answer->body), buf_len(&answer->body), 0, NULL);
}

/* The sentences of a problem document, the document itself, or the status. */
static int say_problem(const struct nlbctl_options *o, const struct http_answer *answer)
{
	json_t *document = parse(answer);
	struct str detail = str_from(json_string_value(json_object_get(document, "detail")));
	struct str line;

	if (!detail.p)
		nlbctl_failf("nlbd answered %u", answer->status);
	if (o->wants_json && document)
		printf("%.*s\n", STR_ARG(buf_str(&answer->body)));
	while (str_split(&detail, '\n', &line))
		nlbctl_failf("%.*s", STR_ARG(line));
	json_decref(document);
	return FAILED;
}

/* gatewayd has /status too, and none of what is looked for in it. */
static int check_program(const struct nlbctl_options *o, const char *path,
			 const struct http_answer *answer)
{
	json_t *document = strcmp(path, "/status") == 0 ? parse(answer) : NULL;
	const char *program = json_string_value(json_object_get(document, "program"));
	int status = DONE;

	if (document && (!program || strcmp(program, "nlbd") != 0))
		status = nlbctl_failf("%s is not nlbd's, %s answers there", o->socket,
				      program ? program : "another program");
	json_decref(document);
	return status;
}

int nlbctl_ask(const struct nlbctl_options *o, enum http_method method, const char *path,
	       const char *query, json_t **out)
{
	struct http_answer answer;
	struct err err = { "" };
	int status = DONE, rc;

	*out = NULL;
	rc = fetch(o, method, path, query, &answer, &err);
	if (rc == -EINVAL)
		return nlbctl_misuse("--socket: %s", err.text);
	if (rc)
		return nlbctl_failf("nlbd does not answer at %s: %s (is it running? packets are "
				    "forwarded without it; another socket: --socket)",
				    o->socket, err.text);
	if (answer.status != 200) {
		status = say_problem(o, &answer);
	} else if (check_program(o, path, &answer) != DONE) {
		status = FAILED;
	} else if (o->wants_json) {
		printf("%.*s\n", STR_ARG(buf_str(&answer.body)));
	} else {
		*out = parse(&answer);
		if (!*out)
			status = nlbctl_fail("nlbd's answer is not JSON");
	}
	http_answer_fini(&answer);
	return status;
}

json_t *nlbctl_get_quietly(const struct nlbctl_options *o, const char *path)
{
	struct http_answer answer;
	struct err unsaid;
	json_t *document = NULL;

	if (fetch(o, METHOD_GET, path, "", &answer, &unsaid) != 0)
		return NULL;
	if (answer.status == 200)
		document = parse(&answer);
	http_answer_fini(&answer);
	return document;
}

int nlbctl_show(const struct nlbctl_options *o, const char *path, const char *query,
		int (*print)(const json_t *document))
{
	json_t *document;
	int status = nlbctl_ask(o, METHOD_GET, path, query, &document);

	if (document)
		status = print(document);
	json_decref(document);
	return status;
}

int nlbctl_change(const struct nlbctl_options *o, const char *path, const char *query,
		  const char *done)
{
	json_t *document;
	int status = nlbctl_ask(o, METHOD_POST, path, query, &document);

	if (document)
		printf("%s%s\n", done,
		       json_is_false(json_object_get(document, "changed")) ? " already" : "");
	json_decref(document);
	return status;
}

void nlbctl_query(struct buf *query, const char *name, const char *value)
{
	buf_printf(query, "%c%s=", buf_len(query) ? '&' : '?', name);
	http_encode(query, str_from(value));
}

/* --- members of answers -----------------------------------------------------------------------
 */

const char *nlbctl_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && *text ? text : "-";
}

json_int_t nlbctl_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

const char *nlbctl_service(char out[static NLBCTL_SERVICE_LEN], const json_t *vip)
{
	const char *address = nlbctl_text(vip, "address");
	bool is_ipv6 = strchr(address, ':') != NULL;
	json_int_t port = nlbctl_number(vip, "port");
	char digits[24] = "*";

	if (port)
		snprintf(digits, sizeof(digits), "%lld", port);
	snprintf(out, NLBCTL_SERVICE_LEN, "%s%s%s:%s/%s", is_ipv6 ? "[" : "", address,
		 is_ipv6 ? "]" : "", digits, nlbctl_text(vip, "protocol"));
	return out;
}
