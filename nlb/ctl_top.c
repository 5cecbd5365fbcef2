/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbctl top: rates of each VIP and gateway, and of what was dropped. Redrawn in place on a
 * terminal, lines of text or JSON elsewhere.
 */
#include "nlb/nlbctl.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"

#define NAME_WIDTH_MIN 8
#define NAME_WIDTH_MAX 40

/* One look at the counters. */
struct sample {
	uint64_t at_ns;
	json_t *status, *gateways; /* owned */
};

struct rates {
	double packets, bits, connections;
};

struct top {
	const struct nlbctl_options *o;
	bool is_terminal;
	struct sample before, now;
	int rows_left; /* of the screen; many when there is no screen */
	int columns;
	int name_width;
	bool is_short_of_rows;
};

/* --- counters ---------------------------------------------------------------------------------
 */

static void sample_free(struct sample *s)
{
	json_decref(s->status);
	json_decref(s->gateways);
	*s = (struct sample) { 0 };
}

static bool sample_take(const struct nlbctl_options *o, struct sample *s)
{
	*s = (struct sample) { .status = nlbctl_get_quietly(o, "/status") };
	if (s->status)
		s->gateways = nlbctl_get_quietly(o, "/gateways");
	s->at_ns = clock_mono_ns();
	if (s->gateways)
		return true;
	sample_free(s);
	return false;
}

static double seconds(const struct top *t)
{
	return (double)(t->now.at_ns - t->before.at_ns) / (double)NSEC_PER_SEC;
}

/* Counters begin anew when the maps are made anew: then there is no rate yet. */
static double rate(const struct top *t, const json_t *before, const json_t *now, const char *key)
{
	json_int_t from = nlbctl_number(before, key), to = nlbctl_number(now, key);

	return before && to > from ? (double)(to - from) / seconds(t) : 0;
}

static struct rates rates_of(const struct top *t, const json_t *before, const json_t *now)
{
	return (struct rates) {
		.packets = rate(t, before, now, "packets"),
		.bits = 8 * rate(t, before, now, "bytes"),
		.connections = rate(t, before, now, "connections"),
	};
}

static const json_t *find_by(const json_t *list, const char *const *keys, const json_t *like)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		size_t k = 0;

		while (keys[k] &&
		       strcmp(nlbctl_text(item, keys[k]), nlbctl_text(like, keys[k])) == 0)
			k++;
		if (!keys[k])
			return item;
	}
	return NULL;
}

static struct rates vip_rates(const struct top *t, const json_t *vip)
{
	static const char *const keys[] = { "name", NULL };
	const json_t *vips = json_object_get(t->before.status, "vips");

	return rates_of(t, find_by(vips, keys, vip), vip);
}

/* Both lists are nearly always in the same order, so the same place is looked at first. */
static struct rates gateway_rates(const struct top *t, size_t place, const json_t *gw)
{
	static const char *const keys[] = { "vip", "name", NULL };
	const json_t *before = json_array_get(t->before.gateways, place);

	if (!before || strcmp(nlbctl_text(before, "name"), nlbctl_text(gw, "name")) != 0 ||
	    strcmp(nlbctl_text(before, "vip"), nlbctl_text(gw, "vip")) != 0)
		before = find_by(t->before.gateways, keys, gw);
	return rates_of(t, before, gw);
}

/* --- the screen -------------------------------------------------------------------------------
 */

#define ESC_ENTER "\033[?1049h\033[?25l" /* a screen of its own, no cursor */
#define ESC_LEAVE "\033[?25h\033[?1049l"
#define ESC_HOME  "\033[H"
#define ESC_EOL   "\033[K"
#define ESC_REST  "\033[J"

static struct termios terminal_before;
static volatile sig_atomic_t wants_end;

static void on_signal(int number)
{
	(void)number;
	wants_end = 1;
}

static void screen_enter(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct termios raw;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	if (tcgetattr(STDIN_FILENO, &terminal_before) == 0) {
		raw = terminal_before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	fputs(ESC_ENTER, stdout);
	fflush(stdout);
}

static void screen_leave(void)
{
	fputs(ESC_LEAVE, stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
}

static void screen_measure(struct top *t)
{
	struct winsize size = { 0 };

	t->columns = 80;
	t->rows_left = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
		t->columns = size.ws_col;
		t->rows_left = size.ws_row;
	}
	t->is_short_of_rows = false;
}

/* A line of the screen, cut to its width. The last row is kept for saying that rows are missing. */
__attribute__((format(printf, 3, 4))) static void line(struct top *t, const char *colour,
						       const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (t->rows_left <= 1) {
		t->is_short_of_rows = true;
		return;
	}
	t->rows_left--;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("%s%.*s%s" ESC_EOL "\r\n", colour, t->columns, text, *colour ? "\033[0m" : "");
}

#define SCALED_LEN 32

/* Four digits at most, and a unit. */
static const char *scaled(double value, char out[static SCALED_LEN])
{
	static const char units[] = " kMGTP";
	size_t u = 0;

	while (value >= 9999.5 && u + 2 < sizeof(units)) {
		value /= 1000;
		u++;
	}
	if (u == 0 || value >= 99.95)
		snprintf(out, SCALED_LEN, "%llu%s%.1s", (unsigned long long)(value + 0.5),
			 u ? " " : "", u ? &units[u] : "");
	else
		snprintf(out, SCALED_LEN, "%llu.%llu %c", (unsigned long long)(value + 0.05),
			 (unsigned long long)((value + 0.05) * 10) % 10, units[u]);
	return out;
}

static const char *state_colour(const char *state)
{
	if (strcmp(state, "ok") == 0 || strcmp(state, "up") == 0)
		return "";
	if (strcmp(state, "draining") == 0 || strcmp(state, "waiting") == 0 ||
	    strcmp(state, "unknown") == 0)
		return "\033[33m";
	return "\033[31m";
}

static void draw_row(struct top *t, const char *indent, const json_t *item, const char *address,
		     const struct rates *r)
{
	char packets[SCALED_LEN], bits[SCALED_LEN], connections[SCALED_LEN];
	const char *state = nlbctl_text(item, "state");

	line(t, state_colour(state), "%s%-*.*s  %-10s  %9s  %9s  %9s  %s", indent,
	     t->name_width - (int)strlen(indent), t->name_width - (int)strlen(indent),
	     nlbctl_text(item, "name"), state, scaled(r->packets, packets), scaled(r->bits, bits),
	     scaled(r->connections, connections), address);
}

static void draw_reasons(struct top *t, const char *title, const char *key)
{
	const json_t *before = json_object_get(t->before.status, key);
	json_t *now = json_object_get(t->now.status, key);
	char text[400] = "", number[SCALED_LEN];
	const char *name;
	json_t *count;
	size_t len = 0;

	json_object_foreach (now, name, count) {
		double per_s = rate(t, before, now, name);

		if (per_s > 0 && len < sizeof(text) - 64)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s %s/s",
						len ? ", " : "", name, scaled(per_s, number));
	}
	line(t, "", "%-10s %s", title, len ? text : "nothing");
}

static int widest_name(const struct sample *s)
{
	int width = NAME_WIDTH_MIN;
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(s->status, "vips"), i, item)
		width = MAX(width, (int)strlen(nlbctl_text(item, "name")));
	json_array_foreach (s->gateways, i, item)
		width = MAX(width, (int)strlen(nlbctl_text(item, "name")) + 2);
	return MIN(width, NAME_WIDTH_MAX);
}

static void draw_vip(struct top *t, const json_t *vip)
{
	char service[NLBCTL_SERVICE_LEN];
	struct rates r = vip_rates(t, vip);
	const json_t *gw;
	size_t i;

	draw_row(t, "", vip, nlbctl_service(service, vip), &r);
	json_array_foreach (t->now.gateways, i, gw) {
		if (strcmp(nlbctl_text(gw, "vip"), nlbctl_text(vip, "name")) != 0)
			continue;
		r = gateway_rates(t, i, gw);
		draw_row(t, "  ", gw, nlbctl_text(gw, "address"), &r);
	}
}

static void draw(struct top *t)
{
	char clock[16];
	time_t now = time(NULL);
	struct tm local;
	const json_t *vip;
	size_t i;

	screen_measure(t);
	t->name_width = widest_name(&t->now);
	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &local));
	fputs(ESC_HOME, stdout);
	line(t, "", "nlbctl top  %s  %s, XDP mode %s, every %.4g s; q ends", clock,
	     nlbctl_text(t->now.status, "interface"), nlbctl_text(t->now.status, "xdp_mode"),
	     (double)t->o->interval_ms / 1000.0);
	line(t, "", " ");
	draw_reasons(t, "dropped", "dropped");
	draw_reasons(t, "answered", "answered");
	draw_reasons(t, "passed on", "passed");
	line(t, "", " ");
	line(t, "\033[1m", "%-*s  %-10s  %9s  %9s  %9s  %s", t->name_width, "VIP", "STATE",
	     "PACKETS/S", "BITS/S", "CONNS/S", "ADDRESS");
	json_array_foreach (json_object_get(t->now.status, "vips"), i, vip)
		draw_vip(t, vip);
	fputs(ESC_REST, stdout);
	if (t->is_short_of_rows)
		printf("... more than the screen holds");
	fflush(stdout);
}

/* --- lines ------------------------------------------------------------------------------------
 */

static void print_rates(const char *clock, const char *vip, const char *gateway,
			const struct rates *r)
{
	printf("%s %s %s packets/s %.1f bits/s %.0f connections/s %.1f\n", clock, vip, gateway,
	       r->packets, r->bits, r->connections);
}

static void print_lines(const struct top *t)
{
	static const char *const ends[] = { "dropped", "answered", "passed" };
	char clock[CLOCK_RFC3339_LEN + 1];
	const json_t *item;
	struct rates r;
	size_t i;

	clock_rfc3339(clock, clock_wall_ms());
	json_array_foreach (json_object_get(t->now.status, "vips"), i, item) {
		r = vip_rates(t, item);
		print_rates(clock, nlbctl_text(item, "name"), "*", &r);
	}
	json_array_foreach (t->now.gateways, i, item) {
		r = gateway_rates(t, i, item);
		print_rates(clock, nlbctl_text(item, "vip"), nlbctl_text(item, "name"), &r);
	}
	for (size_t k = 0; k < ARRAY_SIZE(ends); k++) {
		json_t *now = json_object_get(t->now.status, ends[k]);
		const char *name;
		json_t *count;

		json_object_foreach (now, name, count) {
			double per_s = rate(t, json_object_get(t->before.status, ends[k]), now,
					    name);

			if (per_s > 0)
				printf("%s %s %s packets/s %.1f\n", clock, ends[k], name, per_s);
		}
	}
	fflush(stdout);
}

static void write_rates(struct json_writer *w, const struct rates *r)
{
	json_add_double(w, "packets_per_s", r->packets);
	json_add_double(w, "bits_per_s", r->bits);
	json_add_double(w, "connections_per_s", r->connections);
}

static void write_reasons(const struct top *t, struct json_writer *w, const char *key)
{
	json_t *now = json_object_get(t->now.status, key);
	const char *name;
	json_t *count;

	json_open(w, key, '{');
	json_object_foreach (now, name, count)
		json_add_double(w, name,
				rate(t, json_object_get(t->before.status, key), now, name));
	json_close(w, '}');
}

/* One document a line for each interval. */
static void print_json(const struct top *t)
{
	char clock[CLOCK_RFC3339_LEN + 1];
	struct json_writer w;
	const json_t *item;
	struct rates r;
	struct buf out;
	size_t i;

	buf_init(&out, 64 << 20);
	w = json_writer(&out);
	clock_rfc3339(clock, clock_wall_ms());
	json_open(&w, NULL, '{');
	json_addz(&w, "time", clock);
	json_add_double(&w, "seconds", seconds(t));
	json_open(&w, "vips", '[');
	json_array_foreach (json_object_get(t->now.status, "vips"), i, item) {
		r = vip_rates(t, item);
		json_open(&w, NULL, '{');
		json_addz(&w, "name", nlbctl_text(item, "name"));
		write_rates(&w, &r);
		json_close(&w, '}');
	}
	json_close(&w, ']');
	json_open(&w, "gateways", '[');
	json_array_foreach (t->now.gateways, i, item) {
		r = gateway_rates(t, i, item);
		json_open(&w, NULL, '{');
		json_addz(&w, "vip", nlbctl_text(item, "vip"));
		json_addz(&w, "name", nlbctl_text(item, "name"));
		write_rates(&w, &r);
		json_close(&w, '}');
	}
	json_close(&w, ']');
	write_reasons(t, &w, "dropped");
	write_reasons(t, &w, "answered");
	write_reasons(t, &w, "passed");
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	fflush(stdout);
	buf_fini(&out);
}

/* --- the command ------------------------------------------------------------------------------
 */

/* Waits for the next look; true when the user has had enough. */
static bool wait_for_end(const struct top *t)
{
	uint64_t until = clock_mono_ms() + t->o->interval_ms, now;
	struct pollfd input = { .fd = t->is_terminal ? STDIN_FILENO : -1, .events = POLLIN };

	while (!wants_end && (now = clock_mono_ms()) < until) {
		char key;
		int rc = poll(&input, 1, (int)MIN(until - now, 60000U));

		if (rc <= 0)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1)
			input.fd = -1; /* closed: only signals end it now */
		else if (key == 'q' || key == 'Q')
			return true;
	}
	return wants_end;
}

static void show_sample(struct top *t)
{
	if (t->o->wants_json)
		print_json(t);
	else if (t->is_terminal)
		draw(t);
	else
		print_lines(t);
}

static int run_top(const struct nlbctl_options *o, char **args)
{
	struct top t = { .o = o };
	uint64_t shown = 0;
	json_t *unused;
	int status = DONE;

	(void)args;
	/* The first question in the usual way, for its sentence when nlbd does not answer. */
	if (!sample_take(o, &t.before)) {
		struct nlbctl_options asking = *o;

		asking.wants_json = false;
		status = nlbctl_ask(&asking, METHOD_GET, "/status", "", &unused);
		json_decref(unused);
		return status ? status : nlbctl_fail("nlbd does not answer");
	}
	t.is_terminal = !o->wants_json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	if (t.is_terminal)
		screen_enter();
	while (!wait_for_end(&t)) {
		if (!sample_take(o, &t.now)) {
			status = FAILED;
			break;
		}
		show_sample(&t);
		sample_free(&t.before);
		t.before = t.now;
		t.now = (struct sample) { 0 };
		if (o->count && ++shown == o->count)
			break;
	}
	if (t.is_terminal)
		screen_leave();
	sample_free(&t.before);
	return status ? nlbctl_fail("nlbd does not answer any more") : DONE;
}

const struct command command_top = {
	.name = "top",
	.takes = TAKES_INTERVAL | TAKES_COUNT,
	.run = run_top,
	.summary = "live rates of VIPs, gateways and what is dropped",
	.help = "Options:\n"
		"  --interval TIME  between two looks: 0.5, 1 (default), 10s, 1m\n"
		"  --count N        end after so many\n"
		"\n"
		"On a terminal it redraws its screen until q or Ctrl-C. Elsewhere it writes lines, "
		"one\n"
		"for each VIP, gateway and reason; with --json one document a line for each "
		"interval.\n"
		"Clients' packets are counted, without the tunnel. Answers do not pass here.\n",
};
