/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/daemon.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/net.h"

/* --- command line --------------------------------------------------------------------------------
 */

enum { OPT_CHECK = 256, OPT_SCHEMA, OPT_USER, OPT_LOG_FORMAT, OPT_LOG_LEVEL, OPT_TAKE_OVER };

static void print_help(const struct daemon_program *program)
{
	printf("%s - %s\n\n"
	       "usage: %s %s-c FILE%s [options]\n\n"
	       "  -c, --config FILE     configuration, JSON%s%s%s\n"
	       "      --check           validate the configuration, say every mistake with its "
	       "JSON path, exit 1 if any\n"
	       "      --schema          print the JSON Schema of the configuration\n"
	       "      --user NAME       become this user once everything that needs root is done\n"
	       "      --log-format F    text (default) or json, on standard error\n"
	       "      --log-level L     error, warn, info (default) or debug\n"
	       "%s"
	       "      --version         print the version\n"
	       "      --help            print this\n",
	       program->name, program->summary, program->name, program->default_config ? "[" : "",
	       program->default_config ? "]" : "", program->default_config ? " (default " : "",
	       program->default_config ? program->default_config : "",
	       program->default_config ? ")" : "",
	       program->can_take_over
		       ? "      --take-over       take the listening sockets over from the process "
			 "that runs, which then drains\n"
		       : "");
	if (program->notes)
		printf("\n%s", program->notes);
}

static int parse_word(const char *word, const char *const *words, int count)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(word, words[i]) == 0)
			return i;
	}
	return -1;
}

static int usage_error(const struct daemon_program *program, const char *what)
{
	fprintf(stderr, "%s: %s\nTry: %s --help\n", program->name, what, program->name);
	return 2;
}

int daemon_parse_options(struct daemon_options *out, const struct daemon_program *program, int argc,
			 char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check", no_argument, NULL, OPT_CHECK },
		{ "schema", no_argument, NULL, OPT_SCHEMA },
		{ "user", required_argument, NULL, OPT_USER },
		{ "log-format", required_argument, NULL, OPT_LOG_FORMAT },
		{ "log-level", required_argument, NULL, OPT_LOG_LEVEL },
		{ "take-over", no_argument, NULL, OPT_TAKE_OVER },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char *const formats[] = { [LOG_TEXT] = "text", [LOG_JSON] = "json" };
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	struct daemon_options o = { .config = program->default_config, .log_level = LOG_INFO };
	int opt, word;

	/* A peer that closes early is an ordinary error of write, never a reason to die. */
	signal(SIGPIPE, SIG_IGN);
	while ((opt = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			o.config = optarg;
			break;
		case OPT_CHECK:
			o.wants_check = true;
			break;
		case OPT_SCHEMA:
			o.wants_schema = true;
			break;
		case OPT_USER:
			o.user = optarg;
			break;
		case OPT_LOG_FORMAT:
			word = parse_word(optarg, formats, ARRAY_SIZE(formats));
			if (word < 0)
				return usage_error(program, "--log-format is text or json");
			o.log_format = (enum log_format)word;
			break;
		case OPT_LOG_LEVEL:
			word = parse_word(optarg, levels, ARRAY_SIZE(levels));
			if (word < 0)
				return usage_error(program,
						   "--log-level is error, warn, info or debug");
			o.log_level = (enum log_level)word;
			break;
		case OPT_TAKE_OVER:
			if (!program->can_take_over)
				return usage_error(program, "knows no --take-over");
			o.takes_over = true;
			break;
		case 'V':
			printf("%s (gatehouse) %s\n", program->name, GATEHOUSE_VERSION);
			return 0;
		case 'h':
			print_help(program);
			return 0;
		default:
			fprintf(stderr, "Try: %s --help\n", program->name);
			return 2;
		}
	}
	if (optind < argc)
		return usage_error(program, "takes no arguments but options");
	if (!o.config && !o.wants_schema)
		return usage_error(program, "no configuration: give one with -c FILE");
	log_init(program->name, o.log_format, o.log_level);
	*out = o;
	return -1;
}

void daemon_log_conf(const char *file, const struct conf_errors *errors)
{
	for (const struct conf_error *e = errors->first; e; e = e->next)
		log_event(e->is_warning ? LOG_WARN : LOG_ERROR, "%s: %s%s%s", file, e->path,
			  e->path[0] ? ": " : "", e->text);
}

void daemon_report_conf(const struct daemon_options *o, const struct conf_errors *errors)
{
	bool is_for_people = o->wants_check || (errors->count && o->log_format == LOG_TEXT);
	struct buf text;

	if (!is_for_people) {
		daemon_log_conf(o->config, errors);
		return;
	}
	buf_init(&text, 0);
	conf_errors_write(errors, o->config, &text);
	if (buf_len(&text))
		fwrite(buf_data(&text), 1, buf_len(&text), stderr);
	buf_fini(&text);
}

int daemon_fail(const struct daemon_options *o, const struct daemon_program *program,
		const char *text)
{
	if (o->log_format == LOG_JSON)
		log_error("%s", text);
	else
		fprintf(stderr, "%s: %s\n", program->name, text);
	return 1;
}

size_t daemon_raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	return (size_t)limit.rlim_cur;
}

/* --- privileges
 * ------------------------------------------------------------------------------------ */

/* Every capability outside the mask leaves the bounding set, so that no exec can bring it back. */
static void drop_bounding(uint64_t keep)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (!(keep & ((uint64_t)1 << cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	}
}

static int set_capabilities(uint64_t mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	for (int i = 0; i < 2; i++) {
		data[i].permitted = data[i].effective = (uint32_t)(mask >> (32 * i));
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static uint64_t permitted_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return 0;
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

static int become_user(const char *user, struct err *err)
{
	const struct passwd *pw = getpwnam(user);

	if (!pw)
		return err_set(err, -ENOENT,
			       "--user %s: no such user; make it first (adduser --system %s)", user,
			       user);
	/* A process started by one that has changed already. */
	if (pw->pw_uid == getuid() && pw->pw_uid == geteuid())
		return 0;
	/* Keep the permitted capabilities over setuid; set_capabilities narrows them right after.
	 */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || initgroups(user, pw->pw_gid) < 0 ||
	    setgid(pw->pw_gid) < 0 || setuid(pw->pw_uid) < 0)
		return err_set(err, -errno, "--user %s: cannot change to it: %s", user,
			       strerror(errno));
	return 0;
}

int daemon_drop_privileges(const char *user, const int *keep, size_t keep_count, struct err *err)
{
	uint64_t mask = 0;
	int rc;

	for (size_t i = 0; i < keep_count; i++)
		mask |= (uint64_t)1 << keep[i];
	mask &= permitted_capabilities();
	drop_bounding(mask);
	if (user) {
		rc = become_user(user, err);
		if (rc < 0)
			return rc;
	}
	rc = set_capabilities(mask);
	if (rc < 0)
		return err_set(err, rc, "cannot give up capabilities: %s", strerror(-rc));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "cannot set no_new_privs: %s", strerror(errno));
	return 0;
}

/* --- systemd
 * ----------------------------------------------------------------------------------------- */

void daemon_notify(const char *state)
{
	CLEANUP(cleanup_close) int fd = -1;
	const char *path = getenv("NOTIFY_SOCKET");
	struct net_addr a = { .un.sun_family = AF_UNIX };
	size_t len;

	if (!path || (path[0] != '/' && path[0] != '@'))
		return;
	len = strlen(path);
	if (len >= sizeof(a.un.sun_path))
		return;
	memcpy(a.un.sun_path, path, len);
	if (path[0] == '@')
		a.un.sun_path[0] = '\0';
	a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* Whoever started us may be gone; then nobody waits for the news. */
	if (fd >= 0 && sendto(fd, state, strlen(state), MSG_NOSIGNAL, &a.sa, a.len) < 0)
		return;
}

static struct {
	struct loop_timer timer;
	struct loop *loop;
	uint64_t interval_ms;
} watchdog;

static void watchdog_fire(struct loop_timer *timer)
{
	daemon_notify("WATCHDOG=1");
	loop_timer_start(watchdog.loop, timer, watchdog.interval_ms);
}

void daemon_watchdog_start(struct loop *loop)
{
	const char *usec = getenv("WATCHDOG_USEC");
	uint64_t us;

	if (!usec || !str_u64(str_from(usec), &us) || us < 2000)
		return;
	watchdog.loop = loop;
	watchdog.interval_ms = us / 1000 / 2;
	watchdog.timer.on_fire = watchdog_fire;
	watchdog_fire(&watchdog.timer);
}
