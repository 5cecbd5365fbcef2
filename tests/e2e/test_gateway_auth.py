# SPDX-License-Identifier: Apache-2.0
"""Tokens at the gateway, made by an independent library: who gets in, as whom, and who does not."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import rig as rig_module
from conftest import assert_problem, headers_of, seen
from rig import AUDIENCE, ISSUER, bearer

ALGORITHMS = {"rs": "RS256", "es": "ES256", "hs": "HS256"}


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


def signing_key(rig, name):
    signer = rig.signers[name]
    if name == "hs":
        return signer.secret
    with open(signer.key, "rb") as file:
        return serialization.load_pem_private_key(file.read(), None)


def claims(**more):
    now = int(time.time())
    document = {"iss": ISSUER, "aud": AUDIENCE, "sub": "98765", "iat": now, "exp": now + 600}
    document.update(more)
    return {key: value for key, value in document.items() if value is not None}


def make(rig, name, payload=None, headers=None):
    kid = {"kid": rig.signers[name].kid}
    return jwt.encode(
        payload or claims(), signing_key(rig, name), ALGORITHMS[name], {**kid, **(headers or {})}
    )


def b64(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs_signed(rig, header, payload):
    """A token whose parts are given as they are, signed all the same."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(hmac.new(rig.signers['hs'].secret, signed.encode(), hashlib.sha256).digest())}"


def assert_unauthorized(rig, services, name, token, headers=None):
    answer = rig.ask("GET", f"/{name}/x", bearer(token) if headers is None else headers)
    assert_problem(answer, 401)
    challenge = answer.first("WWW-Authenticate", "")
    assert challenge.startswith("Bearer"), challenge
    assert not seen(services), "no service is touched"
    return challenge


@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_valid_token_becomes_a_user_id(rig, name, listener):
    for _ in range(2):  # verified, then remembered
        answer = rig.ask("GET", f"/{name}/x", bearer(make(rig, name)), listener=listener)
        assert answer.status == 200, answer
        assert headers_of(answer)["x-user-id"] == ["98765"]


def test_tokens_of_the_demo_are_the_same(rig):
    for name in ALGORITHMS:
        token = rig.signers[name].token("98765")
        assert rig.ask("GET", f"/{name}/x", bearer(token)).status == 200


def test_many_users_keep_their_own_ids(rig):
    tokens = {str(user): make(rig, "hs", claims(sub=str(user))) for user in range(200)}
    with rig.connect() as connection:
        for _ in range(2):
            for user, token in tokens.items():
                answer = connection.request("GET", "/hs/x", bearer(token))
                assert headers_of(answer)["x-user-id"] == [user]


def test_scheme_is_case_insensitive(rig):
    token = make(rig, "hs")
    assert rig.ask("GET", "/hs/x", [("Authorization", f"bearer {token}")]).status == 200


def test_user_id_is_recorded_as_typed_in_the_token(rig):
    for subject in ("98765", 98765):
        token = make(rig, "hs", claims(sub=subject))
        answer = rig.ask("GET", "/hs/x", bearer(token))
        got = headers_of(answer)
        assert got["x-user-id"] == ["98765"]
        record = rig.wait_record(request_id=got["x-request-id"][0])
        assert record["userId"] == subject and type(record["userId"]) is type(subject)


@pytest.mark.parametrize(
    "headers",
    [[], [("Authorization", "")], [("Authorization", "Bearer")], [("Authorization", "Bearer ")],
     [("Authorization", "Basic dXNlcjpwYXNz")], [("Authorization", "Bearer garbage")],
     [("Authorization", "Bearer ..")], [("Authorization", "Bearer a.b.c")],
     [("Authorization", "Bearer " + "a" * 9000)]],
    ids=["none", "empty", "no-token", "space", "basic", "garbage", "dots", "parts", "long"],
)
def test_no_usable_token(rig, services, headers):
    assert_unauthorized(rig, services, "hs", None, headers)


def test_two_authorization_headers_are_refused(rig, services):
    headers = bearer(make(rig, "hs")) + bearer(make(rig, "hs", claims(sub="1")))
    answer = rig.ask("GET", "/hs/x", headers)
    assert answer.status in (400, 401)
    assert not seen(services)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_any_changed_character_is_noticed(rig, services, name):
    token = make(rig, name)
    assert rig.ask("GET", f"/{name}/x", bearer(token)).status == 200
    for service in services:
        service.forget()
    for position in range(0, len(token), 7):
        swapped = "B" if token[position] == "A" else "A"
        changed = token[:position] + swapped + token[position + 1 :]
        assert_unauthorized(rig, services, name, changed)


# Fixed: the names of tests must not differ between the processes that run them.
PAST = 1700000000
FAR = 4000000000


@pytest.mark.parametrize(
    "change",
    [
        {"exp": PAST},
        {"exp": None},
        {"exp": 0},
        {"exp": -1},
        {"exp": "soon"},
        {"nbf": FAR},
        {"iss": "https://id.example.com/other"},
        {"iss": None},
        {"aud": "other-app"},
        {"aud": ["other-app", "third-app"]},
        {"aud": None},
        {"sub": None},
    ],
    ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items())[:30],
)
def test_claims_that_do_not_fit(rig, services, change):
    document = claims(**change)
    token = hs_signed(rig, {"alg": "HS256", "kid": rig.signers["hs"].kid}, document)
    assert_unauthorized(rig, services, "hs", token)


def test_audience_list_that_names_us(rig):
    assert rig.ask("GET", "/hs/x", bearer(make(rig, "hs", claims(aud=["a", AUDIENCE])))).status == 200


def test_expired_token_says_so(rig, services):
    token = make(rig, "hs", claims(exp=int(time.time()) - 1))
    assert 'error="invalid_token"' in assert_unauthorized(rig, services, "hs", token)


def test_remembered_token_is_forgotten_when_it_expires(rig, services):
    expires = int(time.time()) + 2
    token = make(rig, "rs", claims(exp=expires))
    assert rig.ask("GET", "/rs/x", bearer(token)).status == 200
    for service in services:
        service.forget()
    time.sleep(max(0.0, expires + 1.1 - time.time()))  # nothing but time makes a token expire
    assert_unauthorized(rig, services, "rs", token)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_no_algorithm_is_no_token(rig, services, algorithm):
    for name in ALGORITHMS:
        head = b64({"alg": algorithm, "kid": rig.signers[name].kid})
        for signature in ("", "AA", make(rig, name).split(".")[2]):
            assert_unauthorized(rig, services, name, f"{head}.{b64(claims())}.{signature}")


def test_public_key_is_no_hmac_secret(rig, services):
    """HS256 signed with the RSA public key: the key fixes the algorithm, not the token."""
    public = signing_key(rig, "rs").public_key()
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        secret = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        head = b64({"alg": "HS256", "kid": rig.signers["rs"].kid})
        signed = f"{head}.{b64(claims())}"
        signature = b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())
        assert_unauthorized(rig, services, "rs", f"{signed}.{signature}")


def test_token_of_one_issuer_is_refused_by_the_others(rig, services):
    for made_by in ALGORITHMS:
        for asked in ALGORITHMS:
            if asked != made_by:
                assert_unauthorized(rig, services, asked, make(rig, made_by))
                same_kid = make(rig, made_by, headers={"kid": rig.signers[asked].kid})
                assert_unauthorized(rig, services, asked, same_kid)


def test_foreign_key_under_our_kid(rig, services):
    strangers = {
        "rs": rsa.generate_private_key(65537, 2048),
        "es": ec.generate_private_key(ec.SECP256R1()),
        "hs": b"x" * 32,
    }
    for name, key in strangers.items():
        kid = {"kid": rig.signers[name].kid}
        assert_unauthorized(rig, services, name, jwt.encode(claims(), key, ALGORITHMS[name], kid))


@pytest.mark.parametrize(
    "header",
    [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"kid": "unknown"},
     {"kid": "../../etc/passwd"}, {"kid": 7}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": None}],
    ids=lambda header: "-".join(header),
)
def test_header_that_asks_for_too_much(rig, services, header):
    head = {"alg": "HS256", "kid": rig.signers["hs"].kid, **header}
    assert_unauthorized(rig, services, "hs", hs_signed(rig, head, claims()))


def test_key_that_the_token_brings_along_is_not_used(rig, services):
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    embedded = {
        "kty": "RSA",
        "n": b64(numbers.n.to_bytes(256, "big")),
        "e": "AQAB",
        "kid": rig.signers["rs"].kid,
    }
    for extra in ({"jwk": embedded}, {"jku": "http://127.0.0.1:1/k"}, {"x5u": "http://127.0.0.1:1/"}):
        token = jwt.encode(claims(), key, "RS256", {"kid": rig.signers["rs"].kid, **extra})
        assert_unauthorized(rig, services, "rs", token)


def test_ecdsa_signature_in_der_is_refused(rig, services):
    head, payload, _ = make(rig, "es").split(".")
    der = signing_key(rig, "es").sign(f"{head}.{payload}".encode(), ec.ECDSA(_sha256()))
    assert_unauthorized(rig, services, "es", f"{head}.{payload}.{b64(der)}")
    assert_unauthorized(rig, services, "es", f"{head}.{payload}.{b64(bytes(64))}")
    assert_unauthorized(rig, services, "es", f"{head}.{payload}.{b64(b'')}")


def _sha256():
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"%s","aud":"%s","sub":"98765","sub":"1","exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":"98765","exp":%d,"exp":99999999999}',
        b'{"iss":"%s","aud":"%s","sub":"98765","exp":%d}x',
        b'{"iss":"%s","aud":"%s","sub":"98765","exp":%d,}',
        b'[{"iss":"%s","aud":"%s","sub":"98765","exp":%d}]',
        b'{"iss":"%s","aud":"%s","sub":"9\\r\\nX-Admin: 1","exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":"9\\u0000","exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":{"a":1},"exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":"","exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":"\xff\xfe","exp":%d}',
        b'{"iss":"%s","aud":"%s","sub":"98765","exp":%d,"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    ],
    ids=["two-subs", "two-exps", "trailing", "comma", "array", "crlf-in-sub", "nul-in-sub",
         "object-sub", "empty-sub", "not-utf8", "deep"],
)
def test_payload_that_two_readers_could_read_differently(rig, services, payload):
    filled = payload % (ISSUER.encode(), AUDIENCE.encode(), int(time.time()) + 600)
    token = hs_signed(rig, {"alg": "HS256", "kid": rig.signers["hs"].kid}, filled)
    assert_unauthorized(rig, services, "hs", token)


def test_encoding_must_be_canonical(rig, services):
    token = make(rig, "hs")
    head, payload, signature = token.split(".")
    assert rig.ask("GET", "/hs/x", bearer(token)).status == 200
    for service in services:
        service.forget()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 32 bytes end in a character of which two bits mean nothing: another one decodes the same.
    twin = alphabet[alphabet.index(signature[-1]) ^ 1]
    for changed in (
        f"{head}.{payload}.{signature}=",
        f"{head}.{payload}.{signature[:-1]}{twin}",
        f"{head}.{payload}.{signature}.",
        f"{head}.{payload}.{signature}.{signature}",
        f"{head}.{payload}",
        f".{token}",
        f"{head}.{payload}.{signature[:5]} {signature[5:]}",
        f"{head}.{payload}.{signature[:5]}%2e{signature[5:]}",
    ):
        assert_unauthorized(rig, services, "hs", changed)


def test_anonymous_routes_need_no_token(rig):
    assert rig.ask("GET", "/echo/x").status == 200
    assert rig.ask("GET", "/echo/x", bearer("garbage")).status == 200


def test_changed_keys_count_after_reload(rig, tmp_path, make_rig, procs):
    """A key that is gone from the file takes its remembered tokens with it."""
    own = make_rig(tmp_path, procs).start()
    token = make(own, "rs")
    assert own.ask("GET", "/rs/x", bearer(token)).status == 200
    fresh = rig_module.identity.Signer(str(tmp_path / "new"), "rs", "RS256", ISSUER, AUDIENCE)
    with open(fresh.jwks, "rb") as source, open(own.signers["rs"].jwks, "wb") as target:
        target.write(source.read())
    own.reload()
    assert_problem(own.ask("GET", "/rs/x", bearer(token)), 401)
    assert own.ask("GET", "/rs/x", bearer(fresh.token("1"))).status == 200
