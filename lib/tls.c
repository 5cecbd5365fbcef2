/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "lib/cleanup.h"

/* Each costs both sides a key derivation. Enough for 16 TB at the rate that AES-GCM asks for
 * (RFC 8446 5.5). */
#define KEY_UPDATES_MAX 64

/* --- transport: a socket BIO that remembers whether the socket ran dry
 * --------------------------------- */

#define HELD_MAX (16UL * 1024)

/* Records that wait for company. */
struct tls_held {
	size_t len, cap;
	char bytes[];
};

struct tls_transport {
	int fd;
	bool is_dry, is_holding;
	unsigned key_updates;  /* that the peer sent */
	struct tls_held *held; /* NULL: nothing */
};

static int transport_read(BIO *bio, char *out, int len)
{
	struct tls_transport *t = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (t->key_updates > KEY_UPDATES_MAX) {
		errno = EPROTO;
		return -1;
	}
	n = recv(t->fd, out, (size_t)len, 0);
	/* Less than asked for: the socket is empty, and asking again would cost a system call to
	 * hear EAGAIN. */
	t->is_dry = n < len;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	return (int)n;
}

/* False when there is no room or memory: what is held is sent then, with these bytes behind it. */
static bool held_add(struct tls_transport *t, const char *data, size_t len)
{
	size_t have = t->held ? t->held->len : 0;
	struct tls_held *h = t->held;

	if (have + len > HELD_MAX)
		return false;
	if (!h || have + len > h->cap) {
		size_t cap = MAX(have + len, (size_t)2048);

		h = realloc(h, sizeof(*h) + cap);
		if (!h)
			return false;
		h->cap = cap;
		h->len = have;
		t->held = h;
	}
	memcpy(h->bytes + have, data, len);
	h->len += len;
	return true;
}

/* Sends what is held and `data` behind it. How much of data went, -1 when not all that was held
 * did. */
static ssize_t send_all(struct tls_transport *t, const char *data, size_t len)
{
	struct iovec iov[2] = {
		{ .iov_base = t->held->bytes, .iov_len = t->held->len },
		{ .iov_base = (void *)(uintptr_t)data, .iov_len = len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };
	ssize_t n = sendmsg(t->fd, &msg, MSG_NOSIGNAL);

	if (n < 0)
		return -1;
	if ((size_t)n < t->held->len || (len && (size_t)n == t->held->len)) {
		t->held->len -= (size_t)n;
		memmove(t->held->bytes, t->held->bytes + n, t->held->len);
		errno = EAGAIN;
		return -1;
	}
	n -= (ssize_t)t->held->len;
	free(TAKE_PTR(t->held));
	return n;
}

static int transport_write(BIO *bio, const char *data, int len)
{
	struct tls_transport *t = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (t->is_holding && held_add(t, data, (size_t)len))
		return len;
	if (t->held)
		n = send_all(t, data, (size_t)len);
	else
		n = send(t->fd, data, (size_t)len, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)n;
}

static long transport_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	/* Nothing is buffered here, so a flush has nothing to do and succeeds. */
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static int transport_destroy(BIO *bio)
{
	struct tls_transport *t = BIO_get_data(bio);

	if (t)
		free(t->held);
	free(t);
	BIO_set_data(bio, NULL);
	return 1;
}

static BIO_METHOD *transport_method(void)
{
	static BIO_METHOD *method;
	BIO_METHOD *m = __atomic_load_n(&method, __ATOMIC_ACQUIRE);

	if (m)
		return m;
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR,
			 "gatehouse socket");
	if (!m)
		return NULL;
	BIO_meth_set_read(m, transport_read);
	BIO_meth_set_write(m, transport_write);
	BIO_meth_set_ctrl(m, transport_ctrl);
	BIO_meth_set_destroy(m, transport_destroy);
	/* Two threads may race here at start-up; the loser's copy is dropped. */
	BIO_METHOD *expected = NULL;
	if (!__atomic_compare_exchange_n(&method, &expected, m, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		BIO_meth_free(m);
		return expected;
	}
	return m;
}

static BIO *transport_new(int fd)
{
	struct tls_transport *t = calloc(1, sizeof(*t));
	BIO *bio = t && transport_method() ? BIO_new(transport_method()) : NULL;

	if (!bio) {
		free(t);
		return NULL;
	}
	t->fd = fd;
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	return bio;
}

void tls_watch_message(int is_write, int version, int type, const void *bytes, size_t len, SSL *ssl,
		       void *arg)
{
	struct tls_transport *t;

	(void)version;
	(void)arg;
	if (is_write || type != SSL3_RT_HANDSHAKE || len == 0 ||
	    *(const unsigned char *)bytes != SSL3_MT_KEY_UPDATE)
		return;
	t = BIO_get_data(SSL_get_rbio(ssl));
	t->key_updates++;
}

/* --- errors
 * ---------------------------------------------------------------------------------------------- */

static long tls_result(SSL *ssl, int rc)
{
	int saved = errno;

	switch (SSL_get_error(ssl, rc)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return saved ? -saved : -ECONNRESET;
	default:
		ERR_clear_error();
		return -EPROTO;
	}
}

/* --- connections
 * ------------------------------------------------------------------------------------------- */

int tls_set_socket(SSL *ssl, int fd)
{
	BIO *bio = transport_new(fd);

	if (!bio)
		return -ENOMEM;
	SSL_set_bio(ssl, bio, bio);
	return 0;
}

long tls_read(SSL *ssl, void *out, size_t len)
{
	size_t n = 0;
	int rc;

	errno = 0;
	rc = SSL_read_ex(ssl, out, len, &n);
	return rc == 1 ? (long)n : tls_result(ssl, rc);
}

long tls_write(SSL *ssl, const void *data, size_t len)
{
	size_t n = 0;
	long result;
	int rc;

	errno = 0;
	rc = SSL_write_ex(ssl, data, len, &n);
	if (rc == 1)
		return (long)n;
	result = tls_result(ssl, rc);
	return result ? result : -EPIPE;
}

int tls_handshake(SSL *ssl)
{
	long result;
	int rc;

	errno = 0;
	rc = SSL_do_handshake(ssl);
	if (rc == 1)
		return 0;
	result = tls_result(ssl, rc);
	return result ? (int)result : -ECONNRESET;
}

void tls_hold(SSL *ssl)
{
	struct tls_transport *t = BIO_get_data(SSL_get_wbio(ssl));

	t->is_holding = true;
}

int tls_release(SSL *ssl)
{
	struct tls_transport *t = BIO_get_data(SSL_get_wbio(ssl));

	t->is_holding = false;
	if (!t->held || send_all(t, NULL, 0) >= 0)
		return 0;
	return errno == EINTR ? -EAGAIN : -errno;
}

void tls_stop_holding(SSL *ssl)
{
	struct tls_transport *t = BIO_get_data(SSL_get_wbio(ssl));

	t->is_holding = false;
}

bool tls_is_drained(SSL *ssl)
{
	const struct tls_transport *t = BIO_get_data(SSL_get_rbio(ssl));

	return t->is_dry && !SSL_has_pending(ssl);
}

const char *tls_version_name(const SSL *ssl)
{
	return SSL_is_init_finished(ssl) ? SSL_get_version(ssl) : "";
}
