#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the first inputs of each harness into corpus/NAME/seed-*; run it after changing it.

What fuzzing found beside them lies in the same folders under other names.
"""

import json
import os
import re
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.dont_write_bytecode = True

import h2  # pylint: disable=wrong-import-position
import malformed  # pylint: disable=wrong-import-position

HOST = b"Host: api.test.example.com\r\n"
GET = b"GET /a/b?c=d HTTP/1.1\r\n" + HOST
CHUNKS = b"5;ext=1\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n"
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

REQUESTS = {
    "get": GET + b"\r\n",
    "post": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "chunked": b"PUT /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
    + CHUNKS,
    "old": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "absolute": b"GET http://a.example/p?q HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "pipeline": GET + b"\r\n" + GET + b"Connection: close, X-Hop\r\nX-Hop: 1\r\n\r\n",
    "forged": GET + b"X-User-Id: u1\r\nX_User_Id: u2\r\nX-Internal-A: 1\r\nConnection: X-User-Id\r\n\r\n",
    "websocket": WEBSOCKET + b"\x81\x85\x01\x02\x03\x04iglhn",
    "template": b"GET /t/a%20b/x?q=%0d%0aX-Evil:%201&q=2 HTTP/1.1\r\n" + HOST
    + b"Cookie: a=b; c=\"d\"\r\nX-In: in\r\n\r\n",
    "prefix": b"GET /p/a/../b HTTP/1.1\r\n" + HOST + b"\r\n",
    "elsewhere": b"GET /l//evil.example/%3f%23?q=a%26b HTTP/1.1\r\n" + HOST + b"\r\n",
    "split": b"GET /c?x=y HTTP/1.1\r\n" + HOST + b"Cookie: a=b; lane=7\r\nX-A: 1\r\n\r\n",
    "mirror": b"POST /m HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    "odd-path": b"GET /fixed/../%2e%2e//a%2Fb;p HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b\r\n\r\n",
}

ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Internal-A: 1\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n" + CHUNKS,
    "close": b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "none": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not-modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"
    b"Content-Length: 2\r\n\r\nok",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello",
    "both": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
    "redirect": b"HTTP/1.1 301 Moved Permanently\r\nLocation: /b\r\nConnection: close\r\n\r\n",
}

FRAMES = {
    "get": h2.request(1, "/a?b", fields=[("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers")]),
    "post": h2.request(1, "/a", "POST", ends=False) + h2.frame(h2.DATA, 1, 1, b"hello"),
    "two": h2.request(1, "/a") + h2.request(3, "/fixed") + h2.window_update(0, 100),
    "split": h2.frame(h2.HEADERS, 1, 1, h2.head("/a")[:9]) + h2.frame(9, 4, 1, h2.head("/a")[9:]),
    "padded": h2.frame(h2.HEADERS, 0x0D, 1, b"\x02" + h2.head("/p") + b"\0\0"),
    "reset": h2.request(1, "/a") + h2.frame(3, 0, 1, struct.pack("!I", 8)),
    "ping": h2.frame(6, 0, 0, b"12345678") + h2.frame(6, 1, 0, b"12345678"),
    "settings": h2.frame(4, 0, 0, struct.pack("!HIHI", 1, 0, 4, 1)) + h2.request(1, "/a"),
    "goaway": h2.request(1, "/a") + h2.frame(7, 0, 0, struct.pack("!II", 1, 0)),
    "trailers": h2.request(1, "/a", "POST", ends=False) + h2.frame(h2.DATA, 0, 1, b"x")
    + h2.frame(h2.HEADERS, 5, 1, h2.field("x-trailer", "1")),
    "priority": h2.frame(2, 0, 1, b"\0\0\0\0\x10") + h2.request(1, "/a"),
    "unknown": h2.frame(0x42, 0, 0, b"what") + h2.request(1, "/a"),
    "closed": h2.request(1, "/a") + h2.frame(h2.DATA, 1, 1, b"late"),
}


def answer_head(stream, status="200", fields=(), ends=False):
    block = b"".join(h2.field(*f) for f in [(":status", status), *fields])
    return h2.frame(h2.HEADERS, 5 if ends else 4, stream, block)


FRAMES_BACK = {
    "ok": answer_head(1, fields=[("content-length", "2")]) + h2.frame(h2.DATA, 1, 1, b"ok")
    + answer_head(3, "204", ends=True),
    "trailers": answer_head(1) + h2.frame(h2.DATA, 0, 1, b"x")
    + h2.frame(h2.HEADERS, 5, 1, h2.field("grpc-status", "0")),
    "interim": answer_head(1, "103") + answer_head(1, ends=True),
    "reset": h2.frame(3, 0, 1, struct.pack("!I", 7)),
    "goaway": h2.frame(7, 0, 0, struct.pack("!II", 0, 0)),
    "settings": h2.frame(4, 1, 0) + h2.frame(4, 0, 0, struct.pack("!HI", 3, 0)),
    "push": h2.frame(5, 4, 1, struct.pack("!I", 2) + h2.field(":status", "200")),
}

PATHS = ["/", "/a/b", "/a//b/../c/./d", "/%2e%2e/x", "/a%2fb", "/a%00", "/a;b=c/d", "/a\\b%5c",
         "/%41%7e%c3%a9", "/../..", "/a/%2E./b", "//", "/a/.", "/%", "/%zz", "", "x", "/é", "/a?b#c"]

PROXY = {
    "v1-4": b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\nGET",
    "v1-6": b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n",
    "v1-unknown": b"PROXY UNKNOWN whatever\r\n",
    "v2-4": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 2, 4, 210, 1, 187]),
    "v2-6": b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(range(36)),
    "v2-local": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    "v2-tlv": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13" + bytes(range(12)) + b"\x01\0\x04abcd",
    "v2-unix": b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216),
}

CLAIMS = {"iss": "https://id.example.com", "aud": ["app", "other"], "sub": "u1", "exp": 1800000600,
          "iat": 1800000000, "nbf": 1799999999, "email": "a@b", "scope": "a b", "roles": ["x"]}
HEADER = {"alg": "HS256", "typ": "JWT", "kid": "k"}
KEYS = [
    {"kty": "oct", "kid": "a", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
    {"kty": "OKP", "crv": "Ed25519", "kid": "b", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "EC", "crv": "P-256", "kid": "c", "use": "sig",
     "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
     "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kty": "RSA", "kid": "d", "e": "AQAB", "key_ops": ["verify"], "n": "u" + "1" * 340 + "w"},
    {"kty": "new", "kid": "e"},
]

INSTANCE = {"id": "id-1", "address": "192.0.2.1", "port": 8080, "secure": True, "zone": "a",
            "version": "1.2", "weight": 50, "status": "UP", "lease_s": 30,
            "metadata": {"k": "v", "empty": ""}}


def api(method, path, body=None):
    text = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: r\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


ONE = "/v1/apps/app/instances/id-1"
API = {
    "register": api("PUT", ONE, INSTANCE) + api("GET", "/v1/apps/app?status=UP&zone=a")
    + api("POST", ONE + "/renew") + api("DELETE", ONE),
    "renew": api("PUT", ONE, INSTANCE)
    + api("POST", "/v1/renew", {"instances": [{"app": "app", "id": "id-1"}]}),
    "list": api("GET", "/v1/apps") + api("GET", "/v1/apps?index=5&wait=1s"),
    "watch": api("GET", "/v1/watch?apps=app,other"),
    "override": api("PUT", ONE, INSTANCE) + api("PUT", ONE + "/status", {"status": "OUT_OF_SERVICE"})
    + api("DELETE", ONE + "/status"),
    "metrics": api("GET", "/metrics") + api("GET", "/status") + api("GET", "/healthz"),
    "wrong": api("PUT", "/v1/apps/%zz/id", {"port": "x"}) + api("PATCH", "/v1"),
}

XML = (b"<?xml version='1.0' encoding='UTF-8'?><!-- c --><instance><instanceId>id-1</instanceId><hostName>h"
       b"</hostName><app>APP</app><ipAddr>192.0.2.1</ipAddr><status>UP</status><port enabled=\"true\">8080"
       b"</port><securePort enabled='false'>443</securePort><vipAddress>v&amp;&#65;&#x42;</vipAddress>"
       b"<dataCenterInfo class=\"x\"><name>MyOwn</name></dataCenterInfo><leaseInfo><durationInSecs>30"
       b"</durationInSecs></leaseInfo><metadata><a__b>1</a__b><c_.0064/><![CDATA[x]]></metadata></instance>")
EUREKA = {"instance": {"instanceId": "id-1", "hostName": "h", "app": "APP", "ipAddr": "192.0.2.1", "status": "UP",
                       "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
                       "vipAddress": "v", "dataCenterInfo": {"@class": "x", "name": "MyOwn"},
                       "leaseInfo": {"durationInSecs": 30}, "metadata": {"k": "v"}}}


def post_xml(path, text):
    head = f"POST {path} HTTP/1.1\r\nHost: r\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


API["eureka"] = (api("POST", "/eureka/apps/APP", EUREKA) + api("GET", "/eureka/apps/delta")
                 + api("PUT", "/eureka/apps/APP/id-1?status=UP&lastDirtyTimestamp=1")
                 + api("PUT", "/eureka/apps/APP/id-1/metadata?a=b") + api("GET", "/eureka/vips/v"))
API["eureka-xml"] = post_xml("/eureka/apps/APP", XML) + api("GET", "/eureka/apps")
SSE = {
    "two": b"id: 1\nevent: change\ndata: {\"a\":1}\ndata: more\n\n: comment\nretry: 5\ndata\n\n",
    "ends": b"data: a\r\n\r\ndata: b\r\rdata: c\n\n\xef\xbb\xbf",
}


def snapshot(*instances):
    """As registry/snapshot.c writes it; the harness puts the checksums in."""
    out = b"GHREGSN1" + struct.pack("<QQQQ", 9, 99, len(instances), 0)
    for index, (app, uid, address, metadata) in enumerate(instances):
        texts = [app, uid, address, b"zone", b"1.2", metadata]
        body = struct.pack("<QQIHHBBB", index + 1, 77, 30, 8080, 100, 0, 1, 0)
        body += struct.pack("<HHBBBHB", len(app), len(uid), len(address), 4, 3, len(metadata), 0)
        body += b"".join(texts)
        out += struct.pack("<IQ", len(body), 0) + body
    return out


PONG = b"+PONG\r\n"
REDIS = {
    "values": PONG + b"+OK\r\n" * 3 + b"$1\r\nb\r\n$-1\r\n_\r\n:42\r\n*2\r\n:1\r\n*1\r\n+x\r\n",
    "errors": b"-NOAUTH Authentication required.\r\n-ERR unknown command\r\n",
    "moved": PONG + b"-READONLY You can't write.\r\n-LOADING wait\r\n-NOSCRIPT no\r\n",
    "push": PONG + b"+OK\r\n>2\r\n+invalidate\r\n*1\r\n+a\r\n+OK\r\n,1.5\r\n#t\r\n(123\r\n",
    "broken": PONG + b"$5\r\nab\r\n*-7\r\n",
    "url": b"redis://user:pass@127.0.0.1:6379/3",
}


def sample(name):
    with open(os.path.join(HERE, "..", "..", "config", name), encoding="utf-8") as file:
        return re.sub(r"\$file:[^\"]*", "0123456789abcdef0123456789abcdef", file.read()).encode()


def seeds():
    for name, data in REQUESTS.items():
        yield "http1_request", name, b"\x03" + data
        yield "gateway_http1", name, b"\0" + data
    for name, data, _ in malformed.MALFORMED[::3]:
        yield "http1_request", "bad-" + name, b"\x07" + data
    for name, data, _ in malformed.MALFORMED[1::6]:
        yield "gateway_http1", "bad-" + name, b"\x05" + data
    for name, data in ANSWERS.items():
        yield "http1_response", name, b"\x03\0" + data
        yield "http_client", name, b"\x22" + data
        yield "gateway_answer", name, (b"\x03\x01" if name == "switch" else b"\0\x01") + data
    for name, data in FRAMES.items():
        yield "gateway_http2", name, b"\0" + data
    yield "gateway_http1", "prior-knowledge", b"\0" + h2.PREFACE + h2.frame(4, 0, 0) + FRAMES["get"]
    for name, data in FRAMES_BACK.items():
        yield "gateway_answer2", name, b"\x01" + data
    for name, data in {"good": CHUNKS, "bad": b"5\nhello\r\n", "long": b"ffffffffffffffff\r\n",
                       "trailer": b"0\r\nContent-Length: 5\r\n\r\n", "next": CHUNKS + GET}.items():
        yield "chunked", name, b"\x02" + data
    for number, path in enumerate(PATHS):
        yield "path", str(number), bytes([number & 15]) + path.encode()
    for name, data in PROXY.items():
        yield "proxy_header", name, data
    yield "jwt", "claims", json.dumps(HEADER).encode() + b"\n" + json.dumps(CLAIMS).encode()
    yield "jwt", "none", b'{"alg":"none"}\n' + json.dumps(CLAIMS).encode()
    yield "jwt", "crit", b'{"alg":"HS256","crit":["b64"],"b64":false}\n{"exp":1e400}'
    yield "jwt", "bearer", b"Bearer eyJhbGciOiJFZERTQSJ9.e30.AAAA"
    yield "claims", "flat", json.dumps(CLAIMS).encode()
    yield "claims", "nested", json.dumps({"a": {"b": {"c": ["x", "y\u00e9\n"]}}, "n": None, "l": [1, "a", []],
                                          "e": {}, "f": 1.5e3, "t": True, "a.b": 1}).encode()
    yield "claims", "odd", rb' { "\u0061" : "\ud83d\ude00\/" , "b":-0.0E+1 } '
    yield "claims", "wrong", b'{"a":1,"a":2}'
    yield "jwks", "strict", b"\x01" + json.dumps({"keys": KEYS[:3]}).encode()
    yield "jwks", "lax", b"\0" + json.dumps({"keys": KEYS}).encode()
    yield "registry_body", "full", json.dumps(INSTANCE).encode()
    yield "registry_body", "small", b'{"id":"a","address":"::1","port":1}'
    yield "registry_body", "wrong", b'{"id":"a","address":"::1","port":0,"weight":-1,"metadata":{"a":1}}'
    for name, data in API.items():
        yield "registry_api", name, b"\0" + data
    yield "registry_snapshot", "two", snapshot((b"app", b"id-1", b"192.0.2.1", b"k\0v\0"),
                                               (b"other", b"id-2", b"2001:db8::1", b""))
    yield "registry_snapshot", "none", snapshot()
    yield "transcode", "json", b'\0{"s":"a","n":"7","d":1.5,"b":"AQI=","more":[{}],"m":{"k":1},"e":"ONE"}'
    yield "transcode", "wrong", b'\0{"n":1e30,"t":true,"e":"TWO","x":null}'
    yield "transcode", "message", b"\x01\n\x01a\x10\x07\x22\x02\1\2*\x032\1b2\x05\n\x01k\x10\x01@\1"
    yield "transcode", "rule", b"\x02/v1/{name=shelves/*}/books/{b.id}:pub\n/v1/shelves/a%2Fb/books/c%20:pub"
    yield "transcode", "rest", b"\x02/v1/{s=**}\n/v1/a/b%2f/%00"
    yield "eureka_xml", "instance", XML
    yield "eureka_xml", "wrong", b"<!DOCTYPE a [<!ENTITY x 'y'>]><instance>&x;<a></b></instance>"
    yield "eureka_xml", "key", b"a-b_c$d\xc3\xa9\xf0\x9f\x98\x80"
    for name, data in REDIS.items():
        yield "redis", name, b"\0" + data
    for name, data in SSE.items():
        yield "sse", name, b"\x04" + data
    yield "conf_gateway", "rider", sample("domains/rider.json")
    yield "conf_gateway", "driver", sample("domains/driver.json")
    yield "conf_nlb", "sample", sample("nlb.json")
    yield "conf_registry", "sample", sample("registry.json")


def main():
    for harness, name, data in seeds():
        folder = os.path.join(HERE, "corpus", harness)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "seed-" + re.sub(r"[^\w.-]", "_", name)), "wb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
