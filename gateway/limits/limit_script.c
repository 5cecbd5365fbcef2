/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens inside Redis. A key holds the time at which its bucket will be full again (GCRA's
 * theoretical arrival time), in microseconds since 2025 by Redis' own clock: the clocks of gateways
 * play no part, and doubles, all that Lua has, keep nanoseconds apart for a century.
 */
#include "gateway/limits/limit_script.h"

const struct str limit_script_text = STR(
	"local t = redis.call('TIME')\n"
	"local now = (t[1] - 1735689600) * 1000000 + t[2]\n"
	"local token, burst = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
	"local settle, want = tonumber(ARGV[3]), tonumber(ARGV[4])\n"
	"local ahead, sharers, last = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])\n"
	/* Of another type, or no number ("nan" is one to Lua): it is not ours, and is written anew.
	 */
	"local held = redis.pcall('GET', KEYS[1])\n"
	"local before = type(held) == 'string' and tonumber(held) or 0\n"
	"if before ~= before then before = 0 end\n"
	/* Redis' clock was set back, or the key is not ours: nobody waits for that. */
	"local most = now + burst * (sharers + 1) + token * 1000\n"
	"if before > most then before = most end\n"
	/* Somebody else moved it since this gateway heard of it. */
	"local moved = (before > now and math.floor(before) ~= last) and 1 or 0\n"
	"local tat = math.max(before, now)\n"
	/* Admitted already, so charged in any case; less than zero is given back. */
	"tat = math.max(now, tat + settle * token)\n"
	/* The small addition is for fractions that are not quite 1. */
	"local room = math.floor((now + burst + ahead - tat) / token + 0.000001)\n"
	"local granted = 0\n"
	/* Not all that is there for who comes first. */
	"if want > 0 and room > 0 then granted = math.min(want, math.ceil(room / sharers)) end\n"
	"tat = tat + granted * token\n"
	"if tat > now then\n"
	"  if settle ~= 0 or granted > 0 then\n"
	"    redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX',\n"
	"               math.ceil((tat - now) / 1000) + 1000)\n"
	"  end\n"
	"elseif before > 0 then redis.call('DEL', KEYS[1]) end\n"
	"return {granted, tat - now, math.floor(tat), moved, tat - burst - now}\n");
