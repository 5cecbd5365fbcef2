/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/doctor.h"

#include <langinfo.h>
#include <locale.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/capability.h>
#include <sys/syscall.h>

#include "lib/cleanup.h"
#include "lib/json.h"

#define CHECK_WIDTH 12

static const struct {
	const char *mark, *plain, *colour, *word;
} results[DOCTOR_RESULTS] = {
	[DOCTOR_GOOD] = { "\u2713", "ok ", "\033[32m", "good" },
	[DOCTOR_WARNING] = { "!", "!  ", "\033[33m", "warning" },
	[DOCTOR_BAD] = { "\u2717", "BAD", "\033[31m", "bad" },
	[DOCTOR_UNKNOWN] = { "?", "?  ", "\033[2m", "unknown" },
};

/* --- saying -----------------------------------------------------------------------------------
 */

static void write_json(struct doctor *d, enum doctor_result result, const char *check,
		       const char *text, const char *remedy)
{
	json_open(d->writer, NULL, '{');
	json_addz(d->writer, "check", check);
	json_addz(d->writer, "result", results[result].word);
	json_addz(d->writer, "text", text);
	if (remedy)
		json_addz(d->writer, "remedy", remedy);
	json_close(d->writer, '}');
}

/* One line; on a terminal that is too narrow the remedy gets its own below. */
static void print_line(const struct doctor *d, enum doctor_result result, const char *check,
		       const char *text, const char *remedy)
{
	size_t width = 2 + CHECK_WIDTH + 1 + strlen(text) + (remedy ? 4 + strlen(remedy) : 0);
	bool fits = !d->columns || width <= (size_t)d->columns;

	printf("%s%s%s %-*s %s", d->is_coloured ? results[result].colour : "",
	       d->is_unicode ? results[result].mark : results[result].plain,
	       d->is_coloured ? "\033[0m" : "", CHECK_WIDTH, check, text);
	if (remedy && fits)
		printf(" -> %s", remedy);
	else if (remedy)
		printf("\n%*s-> %s", 2 + CHECK_WIDTH + 1, "", remedy);
	printf("\n");
	fflush(stdout);
}

static void say(struct doctor *d, enum doctor_result result, const char *check, const char *remedy,
		const char *fmt, va_list ap) __attribute__((format(printf, 5, 0)));

static void say(struct doctor *d, enum doctor_result result, const char *check, const char *remedy,
		const char *fmt, va_list ap)
{
	char text[700];

	vsnprintf(text, sizeof(text), fmt, ap);
	d->counts[result]++;
	if (d->writer)
		write_json(d, result, check, text, remedy);
	else
		print_line(d, result, check, text, remedy);
}

void doctor_good(struct doctor *d, const char *check, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(d, DOCTOR_GOOD, check, NULL, fmt, ap);
	va_end(ap);
}

void doctor_unknown(struct doctor *d, const char *check, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(d, DOCTOR_UNKNOWN, check, NULL, fmt, ap);
	va_end(ap);
}

void doctor_found(struct doctor *d, enum doctor_result result, const char *check,
		  const char *remedy, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(d, result, check, remedy, fmt, ap);
	va_end(ap);
}

const char *doctor_text(char out[static DOCTOR_REMEDY_LEN], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out, DOCTOR_REMEDY_LEN, fmt, ap);
	va_end(ap);
	return out;
}

/* --- the command ------------------------------------------------------------------------------
 */

static bool has_capability(unsigned number)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &head, data) != 0)
		return false;
	return data[number / 32].effective >> (number % 32) & 1;
}

static void look_around(struct doctor *d)
{
	struct winsize size = { 0 };

	/* Maps of others are found by their number, which wants CAP_SYS_ADMIN. */
	d->is_admin = has_capability(CAP_SYS_ADMIN) && has_capability(CAP_NET_ADMIN);
	d->has_raw = has_capability(CAP_NET_RAW);
	setlocale(LC_CTYPE, "");
	d->is_unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	if (!isatty(STDOUT_FILENO))
		return;
	d->is_coloured = true;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		d->columns = size.ws_col;
}

static void print_sum(const struct doctor *d)
{
	unsigned found = d->counts[DOCTOR_BAD] + d->counts[DOCTOR_WARNING];

	printf("\n%u good, %u to look at", d->counts[DOCTOR_GOOD], found);
	if (d->counts[DOCTOR_UNKNOWN])
		printf(", %u cannot be told", d->counts[DOCTOR_UNKNOWN]);
	printf("\n");
}

static void check_roles(struct doctor *d)
{
	bool is_nlb = doctor_is_nlb(d), is_gateway = doctor_is_gateway(d, is_nlb);

	doctor_check_host(d);
	if (is_nlb)
		doctor_check_nlb(d);
	if (is_gateway)
		doctor_check_gateway(d);
	doctor_check_jit(d);
	if (is_nlb || is_gateway)
		return;
	if (!d->is_admin)
		doctor_unknown(d, "role",
			       "cannot tell whether this is a load balancer or a gateway (needs "
			       "root, or --config FILE on a load balancer)");
	else
		doctor_found(
			d, DOCTOR_BAD, "role",
			"start nlbd (systemctl start gatehouse-nlb) or name its --config; on a "
			"gateway: ip address add VIP/32 dev lo",
			"this host is neither: no configuration of nlbd, no decapsulation, no "
			"virtual IP on lo");
}

static int check_options(const struct nlbctl_options *o)
{
	struct net_addr unused;

	if (o->interface && !if_nametoindex(o->interface))
		return nlbctl_misuse(
			"--interface: %s does not exist (ip link shows those there are)",
			o->interface);
	for (size_t i = 0; i < o->source_count; i++) {
		if (net_parse_ip(&unused, str_from(o->sources[i]), 0) != 0)
			return nlbctl_misuse("--source: \"%s\" is not an IP address",
					     o->sources[i]);
	}
	for (size_t i = 0; i < o->vip_count; i++) {
		if (net_parse_ip(&unused, str_from(o->vips[i]), 0) != 0)
			return nlbctl_misuse("--vip: \"%s\" is not an IP address", o->vips[i]);
	}
	return DONE;
}

static int run_doctor(const struct nlbctl_options *o, char **args)
{
	struct doctor d = { .o = o };
	struct json_writer writer;

	(void)args;
	if (check_options(o) != DONE)
		return USAGE;
	look_around(&d);
	buf_init(&d.json, 4 << 20);
	if (o->wants_json) {
		writer = json_writer(&d.json);
		d.writer = &writer;
		json_open(d.writer, NULL, '[');
	}
	check_roles(&d);
	if (o->wants_json) {
		json_close(d.writer, ']');
		printf("%.*s\n", STR_ARG(buf_str(&d.json)));
	} else {
		print_sum(&d);
	}
	buf_fini(&d.json);
	return d.counts[DOCTOR_BAD] || d.counts[DOCTOR_WARNING] ? FAILED : DONE;
}

const struct command command_doctor = {
	.name = "doctor",
	.takes = TAKES_INTERFACE | TAKES_CONFIG | TAKES_SOURCE | TAKES_VIP,
	.run = run_doctor,
	.summary = "find what is set up wrong, on either kind of host",
	.help = "Options:\n"
		"  --config FILE      nlbd's configuration (default: what nlbd runs with, or\n"
		"                     " NLBCTL_CONFIG ")\n"
		"  --interface NAME   only this one, if there are several\n"
		"  --source ADDRESS   on a gateway: a load balancer that must be accepted\n"
		"  --vip ADDRESS      on a gateway: a virtual IP that must be there\n"
		"\n"
		"One line for each check, with what to do where something is wrong. Changes "
		"nothing; it\n"
		"sends a few packets to the gateways. Without root it says what it cannot tell.\n"
		"Exit status: 0 nothing found, 1 findings (! and \u2717), 2 wrong usage.\n",
};
