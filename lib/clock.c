/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void two_digits(char *out, int v)
{
	out[0] = (char)('0' + v / 10 % 10);
	out[1] = (char)('0' + v % 10);
}

void clock_rfc3339(char out[static CLOCK_RFC3339_LEN + 1], uint64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / MSEC_PER_SEC);
	int ms = (int)(wall_ms % MSEC_PER_SEC);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	memcpy(out, "0000-00-00T00:00:00.000Z", CLOCK_RFC3339_LEN + 1);
	two_digits(out, (tm.tm_year + 1900) / 100);
	two_digits(out + 2, (tm.tm_year + 1900) % 100);
	two_digits(out + 5, tm.tm_mon + 1);
	two_digits(out + 8, tm.tm_mday);
	two_digits(out + 11, tm.tm_hour);
	two_digits(out + 14, tm.tm_min);
	two_digits(out + 17, tm.tm_sec);
	out[20] = (char)('0' + ms / 100);
	two_digits(out + 21, ms % 100);
}

int clock_parse_rfc3339(const char *text, uint64_t *out_wall_ms)
{
	struct tm tm = { 0 };
	int ms = 0;
	int offset_min = 0;
	long long seconds;
	const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!p)
		return -EINVAL;
	if (*p == '.') {
		int scale = 100;

		if (p[1] < '0' || p[1] > '9')
			return -EINVAL;
		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			ms += (*p - '0') * scale;
	}
	if (*p == '+' || *p == '-') {
		int h, m, n = 0;

		if (sscanf(p + 1, "%2d:%2d%n", &h, &m, &n) != 2 || n != 5 || h > 23 || m > 59 ||
		    h < 0 || m < 0)
			return -EINVAL;
		offset_min = (*p == '-' ? -1 : 1) * (h * 60 + m);
		p += 6;
	} else if (*p == 'Z') {
		p++;
	} else {
		return -EINVAL;
	}
	if (*p)
		return -EINVAL;
	seconds = (long long)timegm(&tm) - offset_min * 60LL;
	if (seconds < 0)
		return -EINVAL;
	*out_wall_ms = (uint64_t)seconds * MSEC_PER_SEC + (uint64_t)ms;
	return 0;
}

void clock_http_date(char out[static CLOCK_HTTP_DATE_LEN + 1], uint64_t wall_ms)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t seconds = (time_t)(wall_ms / MSEC_PER_SEC);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	memcpy(out, "Day, 00 Mon 0000 00:00:00 GMT", CLOCK_HTTP_DATE_LEN + 1);
	memcpy(out, days + (size_t)tm.tm_wday * 3, 3);
	two_digits(out + 5, tm.tm_mday);
	memcpy(out + 8, months + (size_t)tm.tm_mon * 3, 3);
	two_digits(out + 12, (tm.tm_year + 1900) / 100);
	two_digits(out + 14, (tm.tm_year + 1900) % 100);
	two_digits(out + 17, tm.tm_hour);
	two_digits(out + 20, tm.tm_min);
	two_digits(out + 23, tm.tm_sec);
}
