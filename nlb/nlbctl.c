/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbctl: asks nlbd over its unix socket and prints the answer, explains what packets meet, and
 * finds what is set up wrong; on gateway hosts it puts the decapsulating program on an interface,
 * where no daemon is needed.
 */
#include "nlb/nlbctl.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

/* --- commands ---------------------------------------------------------------------------------
 */

/* In the order of --help; NULL stands for an empty line. */
static const struct group {
	const char *title;
	const struct command *commands[12];
} groups[] = {
	{ "Look, on load-balancer hosts",
	  { &command_status, &command_vips, &command_gateways, &command_flows, &command_trace,
	    &command_top } },
	{ "Steer",
	  { &command_drain, &command_undrain, &command_block, &command_unblock, &command_blocked,
	    &command_withdraw, &command_announce, &command_reload, &command_detach } },
	{ "Gateway hosts (needs no daemon)",
	  { &command_decap_attach, &command_decap_detach, &command_decap_status } },
	{ "Either", { &command_doctor } },
};

#define commands_for_each(pos)                                                 \
	for (size_t g_ = 0; g_ < ARRAY_SIZE(groups); g_++)                     \
		for (size_t c_ = 0; c_ < ARRAY_SIZE(groups[g_].commands) &&    \
				    ((pos) = groups[g_].commands[c_]) != NULL; \
		     c_++)

static void print_synopsis(const struct command *c, int width)
{
	char text[80];

	snprintf(text, sizeof(text), "%s%s%s%s%s", c->name, c->sub ? " " : "", c->sub ? c->sub : "",
		 c->arguments ? " " : "", c->arguments ? c->arguments : "");
	printf("%-*s", width, text);
}

static void print_help(void)
{
	printf("usage: nlbctl [OPTIONS] COMMAND        nlbctl COMMAND --help\n");
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		const struct command *c;

		printf("\n%s:\n", groups[g].title);
		for (size_t i = 0; (c = groups[g].commands[i]); i++) {
			printf("  ");
			print_synopsis(c, 34);
			printf("  %s\n", c->summary);
		}
	}
	printf("\n"
	       "Options of all commands:\n"
	       "  -s, --socket PATH       nlbd's socket (default " NLBCTL_SOCKET ")\n"
	       "      --pin-directory DIR (default " NLBCTL_PIN_DIRECTORY ")\n"
	       "      --json              JSON instead of tables and sentences\n"
	       "      --version, --help\n"
	       "\n"
	       "Exit status: 0 done, 1 failed, 2 wrong usage.\n");
}

static void print_command_help(const struct command *c)
{
	printf("usage: nlbctl ");
	print_synopsis(c, 0);
	printf("%s\n\n%s\n\n%s", c->takes ? " [OPTIONS]" : "", c->summary, c->help);
}

/* Of one command, or of all that share its first word. Returns false when there is none. */
static bool help_for(char **words)
{
	const struct command *c;
	bool is_found = false;

	commands_for_each (c) {
		if (strcmp(words[0], c->name) != 0 ||
		    (c->sub && words[1] && strcmp(words[1], c->sub) != 0))
			continue;
		if (is_found)
			printf("\n");
		print_command_help(c);
		is_found = true;
	}
	return is_found;
}

/* --- options ----------------------------------------------------------------------------------
 */

enum {
	OPT_PIN_DIRECTORY = 256,
	OPT_VIP,
	OPT_SOURCE,
	OPT_MODE,
	OPT_INTERFACE,
	OPT_CONFIG,
	OPT_INTERVAL,
	OPT_COUNT,
	OPT_FOR,
	OPT_NETNS,
	OPT_JSON,
	OPT_VERSION,
	OPT_HELP
};

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, 's' },
	{ "pin-directory", required_argument, NULL, OPT_PIN_DIRECTORY },
	{ "vip", required_argument, NULL, OPT_VIP },
	{ "source", required_argument, NULL, OPT_SOURCE },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "interface", required_argument, NULL, OPT_INTERFACE },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "interval", required_argument, NULL, OPT_INTERVAL },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "for", required_argument, NULL, OPT_FOR },
	{ "netns", required_argument, NULL, OPT_NETNS },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static const struct {
	unsigned takes;
	const char *option;
} special[] = {
	{ TAKES_VIP, "vip" },       { TAKES_SOURCE, "source" },
	{ TAKES_MODE, "mode" },     { TAKES_INTERFACE, "interface" },
	{ TAKES_CONFIG, "config" }, { TAKES_INTERVAL, "interval" },
	{ TAKES_COUNT, "count" },   { TAKES_FOR, "for" },
	{ TAKES_NETNS, "netns" },
};

static int add_text(const char **list, size_t *count, const char *text)
{
	if (*count == DECAP_LIST_MAX)
		return nlbctl_misuse("more than %d addresses", DECAP_LIST_MAX);
	list[(*count)++] = text;
	return DONE;
}

static int set_mode(struct nlbctl_options *o, const char *text)
{
	for (int m = PINS_AUTO; m <= PINS_GENERIC; m++) {
		o->mode = (enum pins_mode)m;
		if (strcmp(text, pins_mode_name(o->mode)) == 0)
			return DONE;
	}
	return nlbctl_misuse("--mode: \"%s\" is not auto, native or generic", text);
}

static int set_count(uint64_t *out, const char *text)
{
	if (!str_u64(str_from(text), out) || !*out)
		return nlbctl_misuse("--count: \"%s\" is not a number above 0", text);
	return DONE;
}

/* "90", "90s", "10m", "2h", "1d"; without a unit seconds. A fraction ("0.5") is for --interval. */
static int set_time(uint64_t *out, const char *option, const char *text, double scale)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 } };
	char *end;
	double value = strtod(text, &end);

	for (size_t i = 0; end != text && i < ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		value *= units[i].seconds * scale;
		if (!(value >= 1 && value <= 1e12))
			break;
		*out = (uint64_t)value;
		return DONE;
	}
	return nlbctl_misuse("--%s: \"%s\" is not a time such as 30s, 10m, 2h or 1d", option, text);
}

static int set_option(struct nlbctl_options *o, int c)
{
	switch (c) {
	case OPT_VIP:
		o->given |= TAKES_VIP;
		return add_text(o->vips, &o->vip_count, optarg);
	case OPT_SOURCE:
		o->given |= TAKES_SOURCE;
		return add_text(o->sources, &o->source_count, optarg);
	case OPT_MODE:
		o->given |= TAKES_MODE;
		return set_mode(o, optarg);
	case OPT_INTERFACE:
		o->given |= TAKES_INTERFACE;
		o->interface = optarg;
		return DONE;
	case OPT_CONFIG:
		o->given |= TAKES_CONFIG;
		o->config = optarg;
		return DONE;
	case OPT_INTERVAL:
		o->given |= TAKES_INTERVAL;
		return set_time(&o->interval_ms, "interval", optarg, 1000);
	case OPT_COUNT:
		o->given |= TAKES_COUNT;
		return set_count(&o->count, optarg);
	case OPT_NETNS:
		o->given |= TAKES_NETNS;
		o->netns = optarg;
		return DONE;
	default:
		o->given |= TAKES_FOR;
		return set_time(&o->for_s, "for", optarg, 1);
	}
}

/* Returns DONE, USAGE, or -1 when all is said (--version). */
static int parse_options(struct nlbctl_options *o, int argc, char **argv)
{
	int status = DONE, c;

	opterr = 0;
	while (status == DONE && (c = getopt_long(argc, argv, "s:", long_options, NULL)) != -1) {
		switch (c) {
		case 's':
			o->socket = optarg;
			break;
		case OPT_PIN_DIRECTORY:
			o->pin_directory = optarg;
			break;
		case OPT_JSON:
			o->wants_json = true;
			break;
		case OPT_HELP:
			o->wants_help = true;
			break;
		case OPT_VERSION:
			printf("nlbctl %s\n", GATEHOUSE_VERSION);
			return -1;
		case '?':
			return nlbctl_misuse("unknown or incomplete option \"%s\"",
					     argv[optind - 1]);
		default:
			status = set_option(o, c);
		}
	}
	return status;
}

/* --- running ----------------------------------------------------------------------------------
 */

static int check_options(const struct nlbctl_options *o, const struct command *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(special); i++) {
		if (o->given & special[i].takes & ~c->takes)
			return nlbctl_misuse("%s takes no --%s", c->name, special[i].option);
	}
	return DONE;
}

static int run_command(const struct nlbctl_options *o, int argc, char **argv)
{
	const struct command *c, *same_word = NULL;

	commands_for_each (c) {
		int words = c->sub ? 2 : 1;

		if (strcmp(argv[0], c->name) != 0)
			continue;
		same_word = c;
		if (c->sub && (argc < 2 || strcmp(argv[1], c->sub) != 0))
			continue;
		if (argc - words < c->min || argc - words > c->max)
			return nlbctl_misuse("%s: wrong number of arguments%s%s", argv[0],
					     c->arguments ? "; it takes " : "",
					     c->arguments ? c->arguments : "");
		if (check_options(o, c) != DONE)
			return USAGE;
		return c->run(o, argv + words);
	}
	if (same_word)
		return nlbctl_misuse("%s: which of its commands? nlbctl %s --help lists them",
				     argv[0], argv[0]);
	return nlbctl_misuse("there is no command \"%s\"", argv[0]);
}

int main(int argc, char **argv)
{
	CLEANUP(cleanup_free) struct nlbctl_options *o = calloc(1, sizeof(*o));
	int status;

	if (!o)
		return nlbctl_fail("out of memory");
	o->socket = NLBCTL_SOCKET;
	o->pin_directory = NLBCTL_PIN_DIRECTORY;
	o->interval_ms = 1000;
	status = parse_options(o, argc, argv);
	if (status != DONE)
		return status < 0 ? DONE : status;
	if (o->wants_help && optind >= argc) {
		print_help();
		return DONE;
	}
	if (optind >= argc)
		return nlbctl_misuse("a command is needed");
	if (o->wants_help)
		return help_for(argv + optind)
			       ? DONE
			       : nlbctl_misuse("there is no command \"%s\"", argv[optind]);
	return run_command(o, argc - optind, argv + optind);
}
