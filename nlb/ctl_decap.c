/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/ctl_decap.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/json.h"

static const char *prefix_text(char out[static 64], const struct net_prefix *p)
{
	char ip[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, p->bytes + 12, ip, sizeof(ip));
	if (p->bits == 128)
		snprintf(out, 64, "%s", ip);
	else
		snprintf(out, 64, "%s/%d", ip, p->bits - 96);
	return out;
}

static void write_prefixes(struct json_writer *w, const char *key, const struct net_prefix *list,
			   size_t count)
{
	char text[64];

	json_open(w, key, '[');
	for (size_t i = 0; i < count; i++)
		json_addz(w, NULL, prefix_text(text, &list[i]));
	json_close(w, ']');
}

static void print_prefixes(const char *title, const struct net_prefix *list, size_t count)
{
	char text[64];

	printf("%-9s", title);
	for (size_t i = 0; i < count; i++)
		printf(" %s", prefix_text(text, &list[i]));
	printf("%s\n", count ? "" : " none");
}

static int parse_prefixes(struct net_prefix *out, const char *const *texts, size_t count,
			  bool is_single, const char *option)
{
	for (size_t i = 0; i < count; i++) {
		if (net_parse_prefix(&out[i], str_from(texts[i])) != 0 ||
		    out[i].bytes[10] != 0xff || (is_single && out[i].bits != 128))
			return nlbctl_misuse("%s: \"%s\" is not an IPv4 address%s", option,
					     texts[i], is_single ? "" : " or prefix");
	}
	return DONE;
}

int ctl_decap_attach(const struct nlbctl_options *o, char **args)
{
	CLEANUP(cleanup_free) struct decap_settings *settings = calloc(1, sizeof(*settings));
	enum pins_mode mode = o->mode;
	struct err err;

	if (!settings)
		return nlbctl_fail("out of memory");
	if (!o->source_count)
		return nlbctl_misuse("decap attach %s: at least one --source is needed", args[0]);
	if (parse_prefixes(settings->sources, o->sources, o->source_count, false, "--source") ||
	    parse_prefixes(settings->vips, o->vips, o->vip_count, true, "--vip"))
		return USAGE;
	settings->source_count = o->source_count;
	settings->vip_count = o->vip_count;
	if (!settings->vip_count)
		decap_find_vips(settings);
	if (!settings->vip_count)
		return nlbctl_fail(
			"lo has no virtual IP: add each one (ip address add VIP/32 dev lo) or "
			"name it "
			"with --vip");
	if (decap_attach(o->pin_directory, args[0], settings, &mode, &err) != 0)
		return nlbctl_fail(err.text);
	if (o->wants_json) {
		printf("{\"attached\":true,\"xdp_mode\":\"%s\"}\n", pins_mode_name(mode));
		return DONE;
	}
	printf("attached to %s, XDP mode %s\n", args[0], pins_mode_name(mode));
	print_prefixes("VIPs", settings->vips, settings->vip_count);
	print_prefixes("sources", settings->sources, settings->source_count);
	return DONE;
}

int ctl_decap_detach(const struct nlbctl_options *o, char **args)
{
	struct err err;

	if (decap_detach(o->pin_directory, args[0], &err) != 0)
		return nlbctl_fail(err.text);
	printf(o->wants_json ? "{\"detached\":true}\n" : "detached\n");
	return DONE;
}

static void print_decap_json(const struct decap_status *s)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	write_prefixes(&w, "vips", s->settings.vips, s->settings.vip_count);
	write_prefixes(&w, "sources", s->settings.sources, s->settings.source_count);
	json_open(&w, "packets", '{');
	for (int r = 0; r < DECAP_REASON_COUNT; r++)
		json_add_u64(&w, decap_reason_names[r], s->reasons[r]);
	json_close(&w, '}');
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

int ctl_decap_status(const struct nlbctl_options *o, char **args)
{
	CLEANUP(cleanup_free) struct decap_status *s = malloc(sizeof(*s));
	struct err err;

	if (!s)
		return nlbctl_fail("out of memory");
	if (decap_status(o->pin_directory, args[0], s, &err) != 0)
		return nlbctl_fail(err.text);
	if (o->wants_json) {
		print_decap_json(s);
		return DONE;
	}
	print_prefixes("VIPs", s->settings.vips, s->settings.vip_count);
	print_prefixes("sources", s->settings.sources, s->settings.source_count);
	for (int r = 0; r < DECAP_REASON_COUNT; r++)
		printf("%-12s %llu\n", decap_reason_names[r], (unsigned long long)s->reasons[r]);
	return DONE;
}

const struct command command_decap_attach = {
	.name = "decap",
	.sub = "attach",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.takes = TAKES_SOURCE | TAKES_VIP | TAKES_MODE,
	.run = ctl_decap_attach,
	.summary = "take the tunnel off packets that arrive there",
	.help = "Options:\n"
		"  --source ADDRESS[/LEN]  accept tunnelled packets of these only: each NLB's\n"
		"                          source_address, and the other gateways of the pool\n"
		"  --vip ADDRESS           for these VIPs; not given: the addresses on lo\n"
		"  --mode MODE             XDP mode: auto (default), native or generic\n"
		"\n"
		"Stays after this command and until a reboot. Used again, it replaces the "
		"settings\n"
		"without a gap.\n"
		"\n"
		"A gateway with the VIP 203.0.113.10 behind the NLB 10.0.0.2:\n"
		"  ip address add 203.0.113.10/32 dev lo\n"
		"  nlbctl decap attach eth0 --source 10.0.0.2\n",
};

const struct command command_decap_detach = {
	.name = "decap",
	.sub = "detach",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.run = ctl_decap_detach,
	.summary = "take it away",
	.help = "Tunnelled packets are no longer understood from here on.\n",
};

const struct command command_decap_status = {
	.name = "decap",
	.sub = "status",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.run = ctl_decap_status,
	.summary = "settings, and packets by what became of them",
	.help = "`stranger` counts packets from sources that were not named by --source.\n",
};
