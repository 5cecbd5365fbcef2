/* SPDX-License-Identifier: Apache-2.0 */
/* nlbctl block, unblock, blocked: the list of sources whose packets are dropped. */
#include "nlb/nlbctl.h"

#include <stdio.h>

#include "lib/table.h"

/* nlbd judges the prefix too, but a typing mistake is told better before anything is asked. */
static int check_prefix(const char *command, const char *text)
{
	struct net_prefix unused;

	if (net_parse_prefix(&unused, str_from(text)) != 0)
		return nlbctl_misuse("%s: \"%s\" is neither an address nor a prefix such as "
				     "198.51.100.0/24 or 2001:db8::/32",
				     command, text);
	return DONE;
}

static int run_block(const struct nlbctl_options *o, char **args)
{
	struct buf query;
	char seconds[24];
	int status;

	if (check_prefix("block", args[0]) != DONE)
		return USAGE;
	buf_init(&query, 4096);
	nlbctl_query(&query, "cidr", args[0]);
	if (o->for_s) {
		snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)o->for_s);
		nlbctl_query(&query, "for_s", seconds);
	}
	buf_putc(&query, '\0');
	status = nlbctl_change(o, "/block", buf_data(&query), "blocked");
	buf_fini(&query);
	return status;
}

static int run_unblock(const struct nlbctl_options *o, char **args)
{
	struct buf query;
	int status;

	if (check_prefix("unblock", args[0]) != DONE)
		return USAGE;
	buf_init(&query, 4096);
	nlbctl_query(&query, "cidr", args[0]);
	buf_putc(&query, '\0');
	status = nlbctl_change(o, "/unblock", buf_data(&query), "unblocked");
	buf_fini(&query);
	return status;
}

/* "45 s", "9 min 30 s", "1 h 59 min", "2 d 3 h": exact enough to know when. */
static const char *time_text(json_int_t s, char out[static 32])
{
	if (s < 60)
		snprintf(out, 32, "%lld s", s);
	else if (s < 3600)
		snprintf(out, 32, "%lld min %lld s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, 32, "%lld h %lld min", s / 3600, s / 60 % 60);
	else
		snprintf(out, 32, "%lld d %lld h", s / 86400, s / 3600 % 24);
	return out;
}

static int print_blocked(const json_t *document)
{
	static const char *const header[] = { "SOURCE", ">ENDS IN", ">DROPPED", NULL };
	const json_t *row, *rows = document;
	struct table *t;
	char time[32];
	size_t i;

	if (json_is_object(document))
		rows = json_object_get(document, "blocked");
	if (!json_array_size(rows)) {
		printf("nothing is blocked\n");
		return DONE;
	}
	t = table_new(header);
	if (!t)
		return nlbctl_fail("out of memory");
	json_array_foreach (rows, i, row) {
		const json_t *left = json_object_get(row, "left_s");

		table_cell(t, "%s", nlbctl_text(row, "cidr"));
		if (json_is_integer(left))
			table_cell(t, "%s", time_text(json_integer_value(left), time));
		else
			table_cell(t, "-");
		table_cell(t, "%lld", nlbctl_number(row, "dropped"));
	}
	table_print(t);
	return DONE;
}

static int run_blocked(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_show(o, "/blocked", "", print_blocked);
}

const struct command command_block = {
	.name = "block",
	.arguments = "CIDR",
	.min = 1,
	.max = 1,
	.takes = TAKES_FOR,
	.run = run_block,
	.summary = "drop every packet of these sources",
	.help = "Options:\n"
		"  --for TIME  only for so long: 30s, 10m, 2h, 1d; a number alone is seconds\n"
		"\n"
		"An address or a prefix, for all VIPs. Of several that hold a source the longest\n"
		"counts. Used again for the same prefix it sets the time anew.\n"
		"\n"
		"Examples:\n"
		"  nlbctl block 198.51.100.0/24 --for 10m\n"
		"  nlbctl block 2001:db8::7\n",
};

const struct command command_unblock = {
	.name = "unblock",
	.arguments = "CIDR",
	.min = 1,
	.max = 1,
	.run = run_unblock,
	.summary = "let them in again",
	.help = "The prefix as `nlbctl blocked` shows it.\n",
};

const struct command command_blocked = {
	.name = "blocked",
	.run = run_blocked,
	.summary = "these sources, for how long, and what was dropped",
	.help = "DROPPED is not exact under load: CPUs count without waiting for each other.\n",
};
