/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/gzip.h"

#include <errno.h>
#include <limits.h>
#include <zlib.h>

#include "lib/cleanup.h"

#define LEVEL  1  /* most of the gain at a third of the time */
#define WINDOW 15 /* zlib's largest; 16 more means gzip's wrapping */
#define MEMORY 8  /* zlib's default */
#define PIECE  65536UL

/* zlib's own type for input is not const, though it only reads. */
static void set_input(z_stream *z, struct str *in)
{
	size_t n = MIN(in->len, (size_t)UINT_MAX);

	z->next_in = (Bytef *)(uintptr_t)in->p;
	z->avail_in = (uInt)n;
	*in = str_sub(*in, n, in->len);
}

int gzip_compress(struct buf *out, struct str in)
{
	z_stream z = { 0 };
	int r = Z_OK;

	if (deflateInit2(&z, LEVEL, Z_DEFLATED, WINDOW + 16, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	while (r != Z_STREAM_END) {
		char *at = buf_reserve(out, PIECE);

		if (!at)
			break;
		if (z.avail_in == 0)
			set_input(&z, &in);
		z.next_out = (Bytef *)at;
		z.avail_out = (uInt)PIECE;
		r = deflate(&z, in.len ? Z_NO_FLUSH : Z_FINISH);
		buf_commit(out, PIECE - z.avail_out);
	}
	deflateEnd(&z);
	return r == Z_STREAM_END ? 0 : -ENOMEM;
}

int gzip_expand(struct buf *out, struct str in)
{
	z_stream z = { 0 };
	int r = Z_OK;

	if (inflateInit2(&z, WINDOW + 16) != Z_OK)
		return -ENOMEM;
	while (r == Z_OK) {
		size_t room = out->max ? MIN(out->max - buf_len(out), PIECE) : PIECE;
		char *at = room ? buf_reserve(out, room) : NULL;

		if (!at) {
			inflateEnd(&z);
			return room ? -ENOMEM : -ENOSPC;
		}
		if (z.avail_in == 0)
			set_input(&z, &in);
		z.next_out = (Bytef *)at;
		z.avail_out = (uInt)room;
		/* Without progress it says Z_BUF_ERROR: the input is cut off. */
		r = inflate(&z, Z_NO_FLUSH);
		buf_commit(out, room - z.avail_out);
	}
	inflateEnd(&z);
	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	return r == Z_STREAM_END && z.avail_in == 0 && in.len == 0 ? 0 : -EBADMSG;
}
