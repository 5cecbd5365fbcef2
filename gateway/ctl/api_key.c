/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/api_key.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/identity/api_keys.h"
#include "lib/base64.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define KEY_BYTES 32

static void print_help(void)
{
	puts("gatewayctl api-key - keys for auth of type api_key\n\n"
	     "usage:\n"
	     "  gatewayctl api-key new --user USER [--id ID] [--scope WORD]… [--claim "
	     "NAME=VALUE]…\n"
	     "      [--lifetime SECONDS | --expires TIME] [--file FILE]\n"
	     "      prints a new key, once: only its hash is kept. Its entry is put into FILE\n"
	     "      (auth.*.keys_file, made if it is not there; a running gatewayd reads it again "
	     "by "
	     "itself),\n"
	     "      or printed on standard error. ID names the key in logs, limits and "
	     "revocations.\n"
	     "  gatewayctl api-key hash KEY|-\n"
	     "      prints the \"hash\" for a key that comes from elsewhere; it must be a random "
	     "one,\n"
	     "      of at least 128 bits\n\n"
	     "exit status: 0 done, 1 failed, 2 usage\n\n"
	     "example:\n"
	     "  gatewayctl api-key new --user acme --scope read --file /etc/gatehouse/keys.json > "
	     "acme.key\n"
	     "  curl -H \"X-API-Key: $(cat acme.key)\" https://api.example.com/reports");
}

struct options {
	const char *user, *id, *file;
	json_t *scopes, *claims;
	char expires[CLOCK_RFC3339_LEN + 1];
};

static int usage(const char *what)
{
	fprintf(stderr, "gatewayctl api-key: %s\nTry: gatewayctl api-key --help\n", what);
	return 2;
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "gatewayctl api-key: %s: %s\n", what, why);
	return 1;
}

static json_t *make_entry(const struct options *o, const char *id, struct str key)
{
	char hash[API_KEY_HASH_TEXT];
	json_t *entry;

	api_key_hash_text(hash, key);
	entry = json_pack("{ss ss ss}", "id", id, "hash", hash, "user", o->user);
	if (json_array_size(o->scopes))
		json_object_set(entry, "scopes", o->scopes);
	if (json_object_size(o->claims))
		json_object_set(entry, "claims", o->claims);
	if (o->expires[0])
		json_object_set_new(entry, "expires", json_string(o->expires));
	return entry;
}

/* What gatewayd would say of the file with this entry. */
static int check(json_t *root, const char *file)
{
	struct api_keys *keys = NULL;
	char *text = json_dumps(root, JSON_COMPACT);
	struct err err = { "out of memory" };
	int rc = text ? api_keys_parse(&keys, str_from(text), STR("sub"), &err) : -ENOMEM;

	free(text);
	api_keys_put(&keys);
	return rc < 0 ? fail(file, err.text) : 0;
}

/* Aside and renamed: gatewayd never sees half of it. The owner and mode stay. */
static int replace(json_t *root, const char *file, const struct stat *st)
{
	CLEANUP(cleanup_free) char *aside = NULL;
	FILE *out;
	int fd;
	bool ok;

	if (asprintf(&aside, "%s.new", file) < 0)
		return fail(file, "out of memory");
	fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	out = fd < 0 ? NULL : fdopen(fd, "w");
	ok = out && json_dumpf(root, out, JSON_INDENT(2)) == 0 && fputc('\n', out) == '\n' &&
	     (!st || (fchmod(fd, st->st_mode & 0777) == 0 &&
		      (fchown(fd, st->st_uid, st->st_gid) == 0 || errno == EPERM))) &&
	     fflush(out) == 0 && fsync(fd) == 0;
	if (out && fclose(out) != 0)
		ok = false;
	if (ok && rename(aside, file) == 0)
		return 0;
	fail(ok ? file : aside, strerror(errno));
	if (fd >= 0)
		unlink(aside);
	return 1;
}

static int add_to_file(const char *file, json_t *entry)
{
	json_error_t syntax;
	struct stat st;
	bool is_there = stat(file, &st) == 0;
	json_t *root = is_there ? json_load_file(file, JSON_REJECT_DUPLICATES, &syntax)
				: json_pack("{s[]}", "keys");
	json_t *list = json_object_get(root, "keys");
	int status;

	if (!root)
		return fail(file, syntax.text);
	if (!json_is_array(list))
		status = fail(file, "holds no list \"keys\"");
	else if (json_array_append(list, entry) < 0)
		status = fail(file, "out of memory");
	else
		status = check(root, file);
	if (status == 0)
		status = replace(root, file, is_there ? &st : NULL);
	json_decref(root);
	return status;
}

static int print_entry(json_t *entry)
{
	json_t *root = json_pack("{s[O]}", "keys", entry);
	int status = check(root, "the entry");

	if (status == 0 && json_dumpf(entry, stderr, JSON_INDENT(2)) == 0)
		fputc('\n', stderr);
	json_decref(root);
	return status;
}

static int new_key(const struct options *o)
{
	unsigned char bytes[KEY_BYTES], chance[6];
	char key[sizeof(API_KEY_PREFIX) + BASE64URL_ENCODED_LEN(KEY_BYTES)] = API_KEY_PREFIX;
	char id[BASE64URL_ENCODED_LEN(sizeof(chance)) + 1] = "";
	size_t len = sizeof(API_KEY_PREFIX) - 1;
	json_t *entry;
	int status;

	if (!o->user)
		return usage("new needs --user");
	random_bytes(bytes, sizeof(bytes));
	random_bytes(chance, sizeof(chance));
	len += base64url_encode(key + len, bytes, sizeof(bytes));
	base64url_encode(id, chance, sizeof(chance));
	entry = make_entry(o, o->id ? o->id : id, str_of(key, len));
	if (!entry)
		return usage("--user, --id and --claim want UTF-8");
	status = o->file ? add_to_file(o->file, entry) : print_entry(entry);
	if (status == 0)
		printf("%.*s\n", (int)len, key);
	OPENSSL_cleanse(key, sizeof(key));
	OPENSSL_cleanse(bytes, sizeof(bytes));
	json_decref(entry);
	return status;
}

static int print_hash(const char *arg)
{
	char line[API_KEY_MAX + 2], hash[API_KEY_HASH_TEXT];
	struct str key = str_from(arg);

	if (strcmp(arg, "-") == 0)
		key = str_chomp(str_from(fgets(line, sizeof(line), stdin)));
	if (key.len < 22 || key.len > API_KEY_MAX)
		return usage("a key has 22 to 256 letters: fewer could be guessed");
	api_key_hash_text(hash, key);
	puts(hash);
	return 0;
}

static int add_claim(struct options *o, const char *text)
{
	const char *eq = strchr(text, '=');
	json_t *value;

	if (!eq || eq == text)
		return usage("--claim wants NAME=VALUE");
	value = json_loads(eq + 1, JSON_DECODE_ANY, NULL);
	if (!value)
		value = json_string(eq + 1);
	if (!value || json_object_setn_new(o->claims, text, (size_t)(eq - text), value) < 0)
		return usage("--claim wants UTF-8");
	return 0;
}

static int set_expires(struct options *o, const char *text, bool is_lifetime)
{
	uint64_t number = 0, ms = 0;

	if (is_lifetime) {
		if (!str_u64(str_from(text), &number) || number == 0 || number > 1ULL << 32)
			return usage("--lifetime is a number of seconds");
		ms = clock_wall_ms() + number * MSEC_PER_SEC;
	} else if (clock_parse_rfc3339(text, &ms) < 0) {
		return usage("--expires is a date such as 2027-01-01T00:00:00Z");
	}
	clock_rfc3339(o->expires, ms);
	return 0;
}

int ctl_api_key(int argc, char **argv)
{
	enum { OPT_USER = 256, OPT_ID, OPT_SCOPE, OPT_CLAIM, OPT_LIFETIME, OPT_EXPIRES, OPT_FILE };
	static const struct option options[] = {
		{ "user", required_argument, NULL, OPT_USER },
		{ "id", required_argument, NULL, OPT_ID },
		{ "scope", required_argument, NULL, OPT_SCOPE },
		{ "claim", required_argument, NULL, OPT_CLAIM },
		{ "lifetime", required_argument, NULL, OPT_LIFETIME },
		{ "expires", required_argument, NULL, OPT_EXPIRES },
		{ "file", required_argument, NULL, OPT_FILE },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options o = { .scopes = json_array(), .claims = json_object() };
	int opt, status = 0;
	const char *command;

	while (status == 0 && (opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case OPT_USER:
			o.user = optarg;
			break;
		case OPT_ID:
			o.id = optarg;
			break;
		case OPT_SCOPE:
			json_array_append_new(o.scopes, json_string(optarg));
			break;
		case OPT_CLAIM:
			status = add_claim(&o, optarg);
			break;
		case OPT_LIFETIME:
		case OPT_EXPIRES:
			status = set_expires(&o, optarg, opt == OPT_LIFETIME);
			break;
		case OPT_FILE:
			o.file = optarg;
			break;
		case 'h':
			print_help();
			json_decref(o.scopes);
			json_decref(o.claims);
			return 0;
		default:
			status = usage("bad option");
		}
	}
	command = optind < argc ? argv[optind] : "";
	if (status == 0 && strcmp(command, "new") == 0 && argc == optind + 1)
		status = new_key(&o);
	else if (status == 0 && strcmp(command, "hash") == 0 && argc == optind + 2)
		status = print_hash(argv[optind + 1]);
	else if (status == 0)
		status = usage("new or hash KEY?");
	json_decref(o.scopes);
	json_decref(o.claims);
	return status;
}
