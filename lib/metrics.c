/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "lib/cleanup.h"
#include "lib/clock.h"

static const uint32_t bounds_us[METRICS_BUCKETS] = {
	50,     100,    200,    500,     1000,    2000,    5000,     10000,    20000,    50000,
	100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000, 20000000, 30000000, 60000000,
};

uint32_t metrics_bound_us(unsigned i)
{
	return bounds_us[i];
}

void metrics_family(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void metrics_label_value(struct buf *out, struct str s)
{
	buf_putc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		switch (s.p[i]) {
		case '"':
		case '\\':
			buf_putc(out, '\\');
			buf_putc(out, s.p[i]);
			break;
		case '\n':
			buf_append(out, "\\n", 2);
			break;
		default:
			buf_putc(out, s.p[i]);
		}
	}
	buf_putc(out, '"');
}

static void metrics_labels(struct buf *out, const struct metrics_label *labels, const char *le)
{
	char sep = '{';

	for (; labels && labels->name; labels++, sep = ',') {
		buf_putc(out, sep);
		buf_addz(out, labels->name);
		buf_putc(out, '=');
		metrics_label_value(out, labels->value);
	}
	if (le) {
		buf_printf(out, "%cle=\"%s\"", sep, le);
		sep = ',';
	}
	if (sep == ',')
		buf_putc(out, '}');
	buf_putc(out, ' ');
}

void metrics_u64(struct buf *out, const char *name, const struct metrics_label *labels,
		 uint64_t value)
{
	buf_addz(out, name);
	metrics_labels(out, labels, NULL);
	buf_u64(out, value);
	buf_putc(out, '\n');
}

void metrics_double(struct buf *out, const char *name, const struct metrics_label *labels,
		    double value)
{
	buf_addz(out, name);
	metrics_labels(out, labels, NULL);
	buf_printf(out, "%.15g\n", value);
}

static double seconds_of(struct timeval tv)
{
	return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

static uint64_t count_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n >= 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t start_ms;

/* Before main: whoever scrapes first comes too late. */
__attribute__((constructor)) static void note_start(void)
{
	start_ms = clock_wall_ms();
}

void metrics_process(struct buf *out, const char *program)
{
	struct rusage usage = { 0 };

	getrusage(RUSAGE_SELF, &usage);
	metrics_family(out, "gatehouse_build_info", "gauge", "Version of the program, always 1.");
	metrics_u64(out, "gatehouse_build_info",
		    METRICS_LABELS({ "program", str_from(program) },
				   { "version", STR(GATEHOUSE_VERSION) }),
		    1);
	metrics_family(out, "process_cpu_seconds_total", "counter",
		       "User and system CPU time spent.");
	metrics_double(out, "process_cpu_seconds_total", NULL,
		       seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
	metrics_family(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
	metrics_u64(out, "process_resident_memory_bytes", NULL, resident_bytes());
	metrics_family(out, "process_open_fds", "gauge", "Open file descriptors.");
	metrics_u64(out, "process_open_fds", NULL, count_open_fds());
	metrics_family(out, "process_start_time_seconds", "gauge",
		       "Start of the process, Unix time.");
	metrics_double(out, "process_start_time_seconds", NULL, (double)start_ms / 1e3);
}

void metrics_observe_us(struct metrics_histogram *h, uint64_t us)
{
	int low = 0, high = METRICS_BUCKETS;

	while (low < high) {
		int mid = (low + high) / 2;

		if (us <= bounds_us[mid])
			high = mid;
		else
			low = mid + 1;
	}
	metrics_inc(&h->count[low], 1);
	metrics_inc(&h->sum_us, us);
}

void metrics_histogram_add(struct metrics_histogram *to, const struct metrics_histogram *from)
{
	for (int i = 0; i <= METRICS_BUCKETS; i++)
		to->count[i] += metrics_get(&from->count[i]);
	to->sum_us += metrics_get(&from->sum_us);
}

void metrics_write_histogram(struct buf *out, const char *name, const struct metrics_label *labels,
			     const struct metrics_histogram *h)
{
	uint64_t total = 0;
	char le[32];

	for (int i = 0; i <= METRICS_BUCKETS; i++) {
		total += h->count[i];
		if (i < METRICS_BUCKETS)
			snprintf(le, sizeof(le), "%g", bounds_us[i] / 1e6);
		else
			snprintf(le, sizeof(le), "+Inf");
		buf_printf(out, "%s_bucket", name);
		metrics_labels(out, labels, le);
		buf_printf(out, "%" PRIu64 "\n", total);
	}
	buf_printf(out, "%s_sum", name);
	metrics_labels(out, labels, NULL);
	buf_printf(out, "%.6f\n", (double)h->sum_us / 1e6);
	buf_printf(out, "%s_count", name);
	metrics_labels(out, labels, NULL);
	buf_printf(out, "%" PRIu64 "\n", total);
}
