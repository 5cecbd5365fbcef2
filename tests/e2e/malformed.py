# SPDX-License-Identifier: Apache-2.0
"""Requests that a gateway must not let through: (name, bytes, statuses it may answer).

Each would be read differently by some server behind, or tells of somebody who tries. Where the end
of the message is in doubt, a request to /echo/smuggled follows: it must never reach a service.
"""

_HOST = b"Host: api.test.example.com\r\n"
_NEXT = b"GET /echo/smuggled HTTP/1.1\r\n" + _HOST + b"\r\n"


def _get(*headers, target=b"/echo/x", method=b"GET", version=b"HTTP/1.1", host=_HOST):
    lines = b"".join(header + b"\r\n" for header in headers)
    return method + b" " + target + b" " + version + b"\r\n" + host + lines + b"\r\n"


def _post(*headers, body=b""):
    return _get(*headers, method=b"POST") + body


def _chunked(body):
    return _post(b"Transfer-Encoding: chunked", body=body)


MALFORMED = [
    # --- what the length is
    ("length-and-chunked", _post(b"Content-Length: 5", b"Transfer-Encoding: chunked",
                                 body=b"0\r\n\r\n" + _NEXT), {400}),
    ("chunked-and-length", _post(b"Transfer-Encoding: chunked", b"Content-Length: 5",
                                 body=b"0\r\n\r\n" + _NEXT), {400}),
    ("two-lengths", _post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + _NEXT), {400}),
    ("two-equal-lengths", _post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), {400}),
    ("length-list", _post(b"Content-Length: 5, 5", body=b"hello"), {400}),
    ("length-plus", _post(b"Content-Length: +5", body=b"hello"), {400}),
    ("length-minus", _post(b"Content-Length: -5", body=b"hello"), {400}),
    ("length-hex", _post(b"Content-Length: 0x5", body=b"hello"), {400}),
    ("length-space-inside", _post(b"Content-Length: 1 0", body=b"hellohello"), {400}),
    ("length-empty", _post(b"Content-Length: ", body=b"hello"), {400}),
    ("length-word", _post(b"Content-Length: five", body=b"hello"), {400}),
    ("length-overflow", _post(b"Content-Length: 18446744073709551621", body=b"hello"), {400, 413}),
    ("length-underscore", _post(b"Content-Length: 1_0", body=b"hellohello"), {400}),
    # --- transfer codings
    ("chunked-in-1.0", _get(b"Transfer-Encoding: chunked", method=b"POST", version=b"HTTP/1.0")
     + b"0\r\n\r\n" + _NEXT, {400}),
    ("chunked-twice", _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked",
                            body=b"0\r\n\r\n" + _NEXT), {400, 501}),
    ("chunked-list", _post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), {400, 501}),
    ("chunked-leading-comma", _post(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n"), {400, 501}),
    ("chunked-parameter", _post(b"Transfer-Encoding: chunked;x", body=b"0\r\n\r\n"), {400, 501}),
    ("chunked-then-identity", _post(b"Transfer-Encoding: chunked, identity",
                                    body=b"0\r\n\r\n" + _NEXT), {400, 501}),
    ("gzip-then-chunked", _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), {400, 501}),
    ("coding-unknown", _post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), {400, 501}),
    ("coding-vertical-tab", _post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), {400, 501}),
    ("coding-space-before-colon", _post(b"Transfer-Encoding : chunked",
                                        body=b"0\r\n\r\n" + _NEXT), {400}),
    # --- chunks
    ("chunk-size-0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-sign", _chunked(b"+5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-minus", _chunked(b"-5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-underscore", _chunked(b"1_0\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-leading-space", _chunked(b" 5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-trailing-space", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-empty", _chunked(b"\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-word", _chunked(b"xyz\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-overflow", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), {400, 413}),
    ("chunk-size-bare-lf", _chunked(b"5\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-extension-cr", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-extension-lf", _chunked(b"5;a\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-extension-nul", _chunked(b"5;a\x00\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-extension-long", _chunked(b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n"),
     {400, 413, 431}),
    ("chunk-data-without-crlf", _chunked(b"5\r\nhelloXX0\r\n\r\n"), {400}),
    ("chunk-data-with-lf", _chunked(b"5\r\nhello\n0\r\n\r\n"), {400}),
    ("last-chunk-with-lf", _chunked(b"5\r\nhello\r\n0\n\n"), {400}),
    ("trailer-length", _chunked(b"0\r\nContent-Length: 5\r\n\r\n"), {400}),
    ("trailer-coding", _chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), {400}),
    ("trailer-space-before-colon", _chunked(b"0\r\nX : y\r\n\r\n"), {400}),
    ("trailer-bare-cr", _chunked(b"0\r\nX: y\rz: w\r\n\r\n"), {400}),
    # --- header lines
    ("obs-fold-space", _get(b"X-A: b", b" c: d"), {400}),
    ("obs-fold-tab", _get(b"X-A: b", b"\tc: d"), {400}),
    ("first-header-folded", b"GET /echo/x HTTP/1.1\r\n " + _HOST + b"\r\n", {400}),
    ("space-before-colon", _get(b"X-A : b"), {400}),
    ("tab-before-colon", _get(b"X-A\t: b"), {400}),
    ("name-empty", _get(b": b"), {400}),
    ("name-space", _get(b"X A: b"), {400}),
    ("name-bracket", _get(b"X[A]: b"), {400}),
    ("name-non-ascii", _get(b"X-\xc3\xa4: b"), {400}),
    ("name-nul", _get(b"X\x00A: b"), {400}),
    ("name-control", _get(b"X\x01A: b"), {400}),
    ("line-without-colon", _get(b"X-A"), {400}),
    ("value-nul", _get(b"X-A: b\x00c"), {400}),
    ("value-bare-cr", _get(b"X-A: b\rX-User-Id: 1"), {400}),
    ("value-bare-lf", _get(b"X-A: b\nX-User-Id: 1"), {400}),
    ("value-control", _get(b"X-A: b\x08c"), {400}),
    ("value-escape", _get(b"X-A: b\x1bc"), {400}),
    ("value-delete", _get(b"X-A: b\x7fc"), {400}),
    ("all-bare-lf", _get().replace(b"\r\n", b"\n"), {400}),
    ("cr-lf-lf", _get()[:-2] + b"\n", {400}),
    ("cr-cr-lf", _get()[:-2] + b"\r\r\n", {400}),
    ("bare-cr-ends-header", _get(b"X-A: b").replace(b"X-A: b\r\n", b"X-A: b\r"), {400}),
    # --- who is asked
    ("host-missing", _get(host=b""), {400}),
    ("host-twice", _get(b"Host: other.example.com"), {400}),
    ("host-twice-equal", _get(_HOST[:-2]), {400}),
    ("host-empty", _get(host=b"Host: \r\n"), {400}),
    ("host-slash", _get(host=b"Host: a/b\r\n"), {400}),
    ("host-userinfo", _get(host=b"Host: user@a\r\n"), {400}),
    ("host-space", _get(host=b"Host: a b\r\n"), {400}),
    ("host-list", _get(host=b"Host: a, b\r\n"), {400}),
    ("host-bad-port", _get(host=b"Host: a:8x\r\n"), {400}),
    ("host-against-authority", _get(target=b"http://other.example.com/echo/x"), {400}),
    # --- the request line
    ("target-fragment", _get(target=b"/echo/x#y"), {400}),
    ("target-space", _get(target=b"/echo/ x"), {400}),
    ("target-tab", _get(target=b"/echo/\tx"), {400}),
    ("target-control", _get(target=b"/echo/\x01x"), {400}),
    ("target-delete", _get(target=b"/echo/\x7f"), {400}),
    ("target-nul", _get(target=b"/echo/\x00"), {400}),
    ("target-empty", b"GET  HTTP/1.1\r\n" + _HOST + b"\r\n", {400}),
    ("target-relative", _get(target=b"echo/x"), {400}),
    ("connect", _get(target=b"example.com:443", method=b"CONNECT"), {400, 405, 501}),
    ("method-empty", b" /echo/x HTTP/1.1\r\n" + _HOST + b"\r\n", {400}),
    ("method-not-token", _get(method=b"G@T"), {400, 501}),
    ("version-0.9", b"GET /echo/x\r\n\r\n", {400, 505}),
    ("version-2.0", _get(version=b"HTTP/2.0"), {400, 505}),
    ("version-1.2", _get(version=b"HTTP/1.2"), {400, 505}),
    ("version-lower-case", _get(version=b"http/1.1"), {400, 505}),
    ("version-other-protocol", _get(version=b"ICY/1.1"), {400, 505}),
    ("version-trailing-space", _get(version=b"HTTP/1.1 "), {400, 505}),
    ("two-spaces", b"GET  /echo/x HTTP/1.1\r\n" + _HOST + b"\r\n", {400}),
    ("tls-hello-in-clear", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32
     + b"\r\n\r\n", {400}),
    # The whole of it begins HTTP/2 on a plain connection; on TLS, ALPN does.
    ("h2-preface-other", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", {400, 405, 501, 505}),
    ("binary", bytes(range(1, 256)) + b"\r\n\r\n", {400}),
]

# Well-formed messages with paths that two servers would resolve differently: refused, but where the
# next request begins is beyond doubt, so the connection may live.
BAD_PATHS = [
    ("target-backslash", _get(target=b"/echo\\x"), {400}),
    ("target-encoded-nul", _get(target=b"/echo/%00"), {400}),
    ("target-encoded-slash", _get(target=b"/echo/..%2fadmin"), {400}),
    ("target-encoded-backslash", _get(target=b"/echo/%5cx"), {400}),
    ("target-bad-escape", _get(target=b"/echo/%zz"), {400}),
    ("target-short-escape", _get(target=b"/echo/%4"), {400}),
    ("target-parameter", _get(target=b"/echo;x=1/y"), {400}),
]

TOO_LARGE = [
    ("one-large-header", _get(b"X-A: " + b"a" * 200_000), {431}),
    ("many-headers", _get(*[b"X-%d: a" % i for i in range(5000)]), {431}),
    ("long-target", _get(target=b"/echo/" + b"a" * 200_000), {414, 431}),
]
