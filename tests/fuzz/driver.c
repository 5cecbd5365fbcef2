/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a harness over files, and over all files of folders: for the corpus in `make check`, and for
 * one input by hand. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned files;

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rbe");
	struct stat st;
	uint8_t *data;

	if (!f || fstat(fileno(f), &st) < 0) {
		perror(path);
		exit(2);
	}
	data = malloc(st.st_size ? (size_t)st.st_size : 1);
	if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(2);
	}
	fclose(f);
	fprintf(stderr, "%s\n", path); /* the last one named is the one that crashed */
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	free(data);
	files++;
}

static void run_path(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;

	if (!dir && errno == ENOTDIR) {
		run_file(path);
		return;
	}
	while (dir && (entry = readdir(dir))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_path(name);
	}
	if (dir)
		closedir(dir);
}

int main(int argc, char **argv)
{
	/* Nothing at all is an input too. */
	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	if (files == 0) {
		fprintf(stderr, "usage: %s FILE|FOLDER...: there was no input\n", argv[0]);
		return 2;
	}
	return 0;
}
