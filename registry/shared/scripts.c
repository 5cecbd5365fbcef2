/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs at Redis. Keys, behind the prefix:
 *
 *   meta        hash: epoch (of this life of Redis), index, base (what whoever began the epoch
 * knew) and, while somebody puts the state back, filling (who, until when) ids         set of
 * "app/id" i:app/id    hash: d (the record), u (status), o (override), r (registered), n (index), s
 * (last renewal known, in Redis' time); expires long after its lease changes     stream: k (what),
 * f (from whom), and what is needed to do the same
 *
 * Each index has exactly one entry in the stream, so a reader sees when it missed something. Keys
 * of instances are made up in the scripts: this is not for Redis Cluster.
 */
#include <errno.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "registry/record.h"
#include "registry/shared/private.h"

/* Numbers beyond 2^31 need a format of their own in Lua's texts. */
#define NOW                                                   \
	"local t = redis.call('TIME')\n"                      \
	"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n" \
	"local function num(n) return string.format('%.0f', n) end\n"

/* Refuses whoever is of another life of Redis, or has seen more than it knows. */
#define BEGIN                                                                           \
	"local m = redis.call('HMGET', KEYS[1], 'epoch', 'index', 'filling')\n"         \
	"if m[1] ~= ARGV[1] or m[3] or tonumber(m[2]) < tonumber(ARGV[2]) then\n"       \
	"  return {-1}\n"                                                               \
	"end\n" NOW "local function add(...)\n"                                         \
	"  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*', 'f', ARGV[3], ...)\n" \
	"end\n"                                                                         \
	"local function next_index()\n"                                                 \
	"  return num(redis.call('HINCRBY', KEYS[1], 'index', 1))\n"                    \
	"end\n"

/* new epoch, new index */
static const char check[] =
	"local m = redis.call('HMGET', KEYS[1], 'epoch', 'index', 'filling', 'base')\n" NOW
	"if m[3] then\n"
	"  local who, till = m[3]:match('^(.*) (%d+)$')\n"
	"  if who ~= ARGV[3] and tonumber(till) > now then return {3} end\n"
	"end\n"
	"if m[1] and not m[3] and (m[1] ~= ARGV[1] or tonumber(m[2]) >= tonumber(ARGV[2])) then\n"
	"  if tonumber(m[2]) < tonumber(ARGV[2]) then\n"
	"    m[2] = ARGV[5]\n"
	"    redis.call('HSET', KEYS[1], 'index', m[2])\n"
	"  end\n"
	"  local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)\n"
	"  local first = KEYS[1] .. ':checker'\n"
	"  local who = redis.call('GET', first)\n"
	"  if not who or who == ARGV[3] then\n"
	"    redis.call('SET', first, ARGV[3], 'PX', 3000)\n"
	"    who = ARGV[3]\n"
	"  end\n"
	"  return {m[1] == ARGV[1] and 0 or 1, m[1], m[2], m[4] or '0',\n"
	"    last[1] and last[1][1] or '0-0', who == ARGV[3] and 1 or 0}\n"
	"end\n"
	"for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do\n"
	"  redis.call('DEL', KEYS[4] .. name)\n"
	"end\n"
	"redis.call('DEL', KEYS[2], KEYS[3])\n"
	"redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'index', ARGV[5], 'base', ARGV[2],\n"
	"  'filling', ARGV[3] .. ' ' .. num(now + 5000))\n"
	"return {2, ARGV[4], ARGV[5]}\n";

/* name, d, u, o, r, n, age, ttl of each */
static const char keep[] =
	"if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {-1} end\n" NOW
	"for i = 4, #ARGV, 8 do\n"
	"  local key = KEYS[4] .. ARGV[i]\n"
	"  redis.call('HSET', key, 'd', ARGV[i + 1], 'u', ARGV[i + 2], 'o', ARGV[i + 3],\n"
	"    'r', ARGV[i + 4], 'n', ARGV[i + 5], 's', num(now - ARGV[i + 6]))\n"
	"  redis.call('PEXPIRE', key, ARGV[i + 7])\n"
	"  redis.call('SADD', KEYS[2], ARGV[i])\n"
	"end\n"
	"redis.call('HSET', KEYS[1], 'filling', ARGV[3] .. ' ' .. num(now + 5000))\n"
	"return {0}\n";

static const char filled[] =
	"if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {-1} end\n"
	"redis.call('HDEL', KEYS[1], 'filling')\n"
	"return {0}\n";

/* epoch, cursor; answers cursor, then d, u, o, r, n of each */
static const char load[] =
	"if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[4] then return {-1} end\n"
	"local page = redis.call('SSCAN', KEYS[2], ARGV[5], 'COUNT', 200)\n"
	"local out = {0, page[1]}\n"
	"for _, name in ipairs(page[2]) do\n"
	"  local h = redis.call('HMGET', KEYS[4] .. name, 'd', 'u', 'o', 'r', 'n')\n"
	"  if h[1] then\n"
	"    for i = 1, 5 do out[#out + 1] = h[i] end\n"
	"  end\n"
	"end\n"
	"return out\n";

/* name, d, u, o, registered, ttl, force */
static const char put[] = BEGIN
	"local key = KEYS[4] .. ARGV[4]\n"
	"local h = redis.call('HMGET', key, 'd', 'u', 'o', 'r', 'n')\n"
	"local o, r = ARGV[7], ARGV[8]\n"
	"if h[1] and ARGV[10] == '0' then\n"
	"  r = h[4]\n"
	"  if h[3] ~= '0' then o = h[3] end\n"
	"end\n"
	"if h[1] == ARGV[5] and h[2] == ARGV[6] and h[3] == o then\n"
	"  redis.call('HSET', key, 's', num(now))\n"
	"  redis.call('PEXPIRE', key, ARGV[9])\n"
	"  add('k', 'r', 'b', ARGV[4] .. ' 0')\n"
	"  return {2, tonumber(h[5])}\n"
	"end\n"
	"local n = next_index()\n"
	"redis.call('HSET', key, 'd', ARGV[5], 'u', ARGV[6], 'o', o, 'r', r, 'n', n, 's', "
	"num(now))\n"
	"redis.call('PEXPIRE', key, ARGV[9])\n"
	"redis.call('SADD', KEYS[2], ARGV[4])\n"
	"add('k', 'p', 'n', n, 'd', ARGV[5], 'u', ARGV[6], 'o', o, 'r', r)\n"
	"return {h[1] and 1 or 0, tonumber(n)}\n";

/* name */
static const char remove_one[] = BEGIN
	"if redis.call('DEL', KEYS[4] .. ARGV[4]) == 0 then return {-2} end\n"
	"redis.call('SREM', KEYS[2], ARGV[4])\n"
	"local n = next_index()\n"
	"add('k', 'd', 'n', n, 'i', ARGV[4])\n"
	"return {0, tonumber(n)}\n";

/* name, override, reported or 0 */
static const char status[] = BEGIN
	"local key = KEYS[4] .. ARGV[4]\n"
	"local h = redis.call('HMGET', key, 'u', 'o', 'n')\n"
	"if not h[1] then return {-2} end\n"
	"local u = ARGV[6] ~= '0' and ARGV[6] or h[1]\n"
	"local o = ARGV[5] ~= '" SHARED_AS_IT_IS "' and ARGV[5] or h[2]\n"
	"if u == h[1] and o == h[2] then return {0, tonumber(h[3])} end\n"
	"local n = next_index()\n"
	"redis.call('HSET', key, 'u', u, 'o', o, 'n', n)\n"
	"add('k', 's', 'n', n, 'i', ARGV[4], 'u', u, 'o', o)\n"
	"return {0, tonumber(n)}\n";

/* name, age, ttl of each; answers the index, then the names that are not there */
static const char renew[] = BEGIN
	"local out, told = {0, tonumber(m[2])}, {}\n"
	"for i = 4, #ARGV, 3 do\n"
	"  local key = KEYS[4] .. ARGV[i]\n"
	"  if redis.call('EXISTS', key) == 1 then\n"
	"    redis.call('HSET', key, 's', num(now - ARGV[i + 1]))\n"
	"    redis.call('PEXPIRE', key, ARGV[i + 2])\n"
	"    told[#told + 1] = ARGV[i] .. ' ' .. ARGV[i + 1]\n"
	"  else\n"
	"    out[#out + 1] = ARGV[i]\n"
	"  end\n"
	"end\n"
	"if #told > 0 then add('k', 'r', 'b', table.concat(told, ' ')) end\n"
	"return out\n";

/* name, lease of each, in milliseconds */
static const char expire[] = BEGIN "for i = 4, #ARGV, 2 do\n"
				   "  local key = KEYS[4] .. ARGV[i]\n"
				   "  local s = redis.call('HGET', key, 's')\n"
				   "  if not s or now - s >= tonumber(ARGV[i + 1]) then\n"
				   "    redis.call('DEL', key)\n"
				   "    redis.call('SREM', KEYS[2], ARGV[i])\n"
				   "    add('k', 'd', 'n', next_index(), 'i', ARGV[i], 'e', '1')\n"
				   "  end\n"
				   "end\n"
				   "return {0}\n";

void shared_scripts_init(struct reg_shared *s)
{
	static const char *const texts[SHARED_SCRIPTS] = {
		[SHARED_CHECK] = check,   [SHARED_KEEP] = keep,   [SHARED_FILLED] = filled,
		[SHARED_LOAD] = load,     [SHARED_PUT] = put,     [SHARED_REMOVE] = remove_one,
		[SHARED_STATUS] = status, [SHARED_RENEW] = renew, [SHARED_EXPIRE] = expire,
	};

	for (size_t i = 0; i < SHARED_SCRIPTS; i++)
		redis_script_init(&s->scripts[i], str_from(texts[i]));
}

int shared_eval(struct reg_shared *s, enum shared_script script, const struct str *args,
		size_t count, redis_answer_fn *on_answer, void *arg)
{
	struct str all[7 + 8 * SHARED_BATCH];
	char index[SHARED_TEXT];

	if (count > ARRAY_SIZE(all) - 7)
		return -EINVAL;
	snprintf(index, sizeof(index), "%llu",
		 (unsigned long long)reg_store_index(s->writer.store));
	all[0] = str_from(s->meta);
	all[1] = str_from(s->ids);
	all[2] = str_from(s->changes);
	all[3] = str_from(s->hashes);
	all[4] = str_from(s->epoch);
	all[5] = str_from(s->writer.is_loaded ? index : "0");
	all[6] = str_from(s->origin);
	for (size_t i = 0; i < count; i++)
		all[7 + i] = args[i];
	return redis_eval(s->commands, &s->scripts[script], 4, all, 7 + count, on_answer, arg);
}

int64_t shared_code(const struct redis_answer *answer)
{
	int64_t code;

	if (answer->error < 0)
		return answer->error == -EREMOTEIO ? -EREMOTEIO : -EAGAIN;
	return redis_int(redis_item(answer->reply, 0), &code) ? code : -EREMOTEIO;
}

/* --- arguments ------------------------------------------------------------------------------- */

void shared_args_init(struct shared_args *a)
{
	*a = (struct shared_args) { 0 };
	arena_init(&a->arena, 16384, 0);
}

void shared_args_fini(struct shared_args *a)
{
	arena_fini(&a->arena);
}

void shared_args_add(struct shared_args *a, struct str text)
{
	struct str copy = arena_str(&a->arena, text);

	if (a->count == a->cap) {
		size_t cap = MAX(a->cap * 2, (size_t)16);
		struct str *v = arena_array(&a->arena, struct str, cap);

		if (v && a->count)
			memcpy(v, a->v, a->count * sizeof(*v));
		if (v) {
			a->v = v;
			a->cap = cap;
		}
	}
	if (!copy.p || a->count == a->cap)
		a->has_failed = true;
	else
		a->v[a->count++] = copy;
}

void shared_args_u64(struct shared_args *a, uint64_t n)
{
	char text[SHARED_TEXT];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	shared_args_add(a, str_from(text));
}

struct str shared_name(char out[static SHARED_NAME_MAX], struct str app, struct str id)
{
	if (app.len > REG_APP_MAX || id.len > REG_ID_MAX)
		return str_of(NULL, 0);
	memcpy(out, app.p, app.len);
	out[app.len] = '/';
	memcpy(out + app.len + 1, id.p, id.len);
	return str_of(out, app.len + 1 + id.len);
}

void shared_args_name(struct shared_args *a, struct str app, struct str id)
{
	char text[SHARED_NAME_MAX];
	struct str name = shared_name(text, app, id);

	if (name.p)
		shared_args_add(a, name);
	else
		a->has_failed = true;
}

void shared_args_instance(struct shared_args *a, struct str app, const struct reg_instance *i)
{
	struct reg_instance bare = *i;
	struct buf record;

	/* These change without the rest: they stand beside it. */
	bare.index = bare.registered_ms = 0;
	bare.override = REG_NO_STATUS;
	bare.status = REG_UP;
	buf_init(&record, 0);
	reg_record_encode(app, &bare, &record);
	a->has_failed |= buf_failed(&record);
	shared_args_add(a, buf_str(&record));
	buf_fini(&record);
	shared_args_u64(a, i->status);
	shared_args_u64(a, i->override);
}

bool shared_row_read(struct shared_row *row, struct str record, struct str state,
		     struct str override, struct str registered, struct str index)
{
	uint64_t u, o;

	if (!record.p || !reg_record_decode(record, &row->app, &row->instance) ||
	    !str_u64(state, &u) || !str_u64(override, &o) ||
	    !str_u64(registered, &row->instance.registered_ms) ||
	    !str_u64(index, &row->instance.index))
		return false;
	if (u == REG_NO_STATUS || u >= REG_STATUSES || o >= REG_STATUSES)
		return false;
	row->instance.status = (enum reg_status)u;
	row->instance.override = (enum reg_status)o;
	return true;
}

bool shared_name_split(struct str name, struct str *app, struct str *id)
{
	ptrdiff_t slash = str_chr(name, '/');

	if (slash <= 0 || (size_t)slash + 1 == name.len)
		return false;
	*app = str_sub(name, 0, (size_t)slash);
	*id = str_sub(name, (size_t)slash + 1, name.len);
	return true;
}
