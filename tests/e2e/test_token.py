# SPDX-License-Identifier: Apache-2.0
"""gatewayctl token: keys, signing, and verdicts by the gateway's own code, with tokens of two
independent libraries."""

import json
import os
import shutil
import stat
import subprocess
import time

import pytest

import identity
from rig import bearer

ALGORITHMS = [
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
]
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ISSUER = "https://id.example.com/rider"


@pytest.fixture
def token(program, tmp_path):
    """Runs gatewayctl token in a directory of its own; returns the finished process."""

    def run(*words, stdin=""):
        return subprocess.run(
            [program("gatewayctl"), "token", *words],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def key_file(tmp_path, name):
    pem = tmp_path / f"{name}.pem"
    return pem.name if pem.exists() else f"{name}.jwks.json"


@pytest.fixture
def signed(token, tmp_path):
    """A key `k`, and a function that signs with it."""
    assert token("new-key", "k").returncode == 0

    def sign(*words):
        done = token("sign", "--key", key_file(tmp_path, "k"), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return sign


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_new_key_sign_and_verify_fit_together(token, tmp_path, algorithm):
    made = token("new-key", "--alg", algorithm, "k")
    assert made.returncode == 0, made.stderr
    key = key_file(tmp_path, "k")
    assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o600
    words = ("--issuer", ISSUER, "--audience", "app", "--subject", "u1")
    text = token("sign", "--key", key, "--alg", algorithm, *words).stdout
    words = ("--issuer", ISSUER, "--audience", "app", "--alg", algorithm)
    done = token("verify", "--jwks", "k.jwks.json", *words, "-", stdin=text)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("valid\n") and '"sub": "u1"' in done.stdout
    # Made by chance: another key of the same name would replace nothing.
    assert token("new-key", "--alg", algorithm, "k").returncode == 2


def test_tokens_of_pyjwt_are_accepted(token, tmp_path):
    jwt = pytest.importorskip("jwt")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    rsa_key = rsa.generate_private_key(65537, 2048)
    keys = {"RS": rsa_key, "PS": rsa_key, "Ed": ed25519.Ed25519PrivateKey.generate()}
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    for algorithm in ALGORITHMS:
        encoder = jwt.get_algorithm_by_name(algorithm)
        if algorithm in curves:
            key = ec.generate_private_key(curves[algorithm])
        else:
            key = keys.get(algorithm[:2])
        if algorithm.startswith("HS"):
            key = os.urandom(64)
            jwk = {"kty": "oct", "k": identity.b64url(key)}
        else:
            jwk = json.loads(encoder.to_jwk(key.public_key()))
            # PyJWT says "verify" already; newer versions leave key_ops out.
            jwk.pop("key_ops", None)
            if algorithm in curves:
                # PyJWT cuts leading zeros off, which RFC 7518 6.2.1.2 forbids.
                numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
                jwk["x"] = identity.b64url(numbers.x.to_bytes(size, "big"))
                jwk["y"] = identity.b64url(numbers.y.to_bytes(size, "big"))
        (tmp_path / "py.json").write_text(json.dumps({"keys": [{**jwk, "kid": "p"}]}))
        claims = {"iss": ISSUER, "aud": ["x", "app"], "sub": "u", "exp": time.time() + 60}
        text = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "p"})
        words = ("--issuer", ISSUER, "--audience", "app", "--alg", algorithm)
        done = token("verify", "--jwks", "py.json", *words, text)
        assert done.returncode == 0, (algorithm, done.stdout, done.stderr)
        signature = text.rpartition(".")[2]
        flipped = text[: -len(signature)] + ("B" if signature[0] == "A" else "A") + signature[1:]
        done = token("verify", "--jwks", "py.json", *words, flipped)
        assert done.returncode == 1 and "bad_signature" in done.stdout, (algorithm, done.stdout)


def test_pyjwt_accepts_our_tokens(token, tmp_path):
    jwt = pytest.importorskip("jwt")
    for algorithm in ALGORITHMS:
        token("new-key", "--alg", algorithm, algorithm)
        key = key_file(tmp_path, algorithm)
        words = ("--audience", "app", "--claim", "n=5", "--claim", "scope=a b")
        text = token("sign", "--key", key, "--alg", algorithm, *words).stdout.strip()
        jwk = json.loads((tmp_path / f"{algorithm}.jwks.json").read_text())["keys"][0]
        public = jwt.get_algorithm_by_name(algorithm).from_jwk(json.dumps(jwk))
        claims = jwt.decode(text, public, algorithms=[algorithm], audience="app")
        assert claims["n"] == 5 and claims["scope"] == "a b"
        assert jwt.get_unverified_header(text)["kid"] == jwk["kid"]


def test_tokens_of_node_are_accepted(token, tmp_path):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    # Where scripts/install-deps.sh puts it, or wherever it is already.
    folders = [os.path.join(ROOT, "build/npm/node_modules"), os.environ.get("NODE_PATH", "")]
    env = {**os.environ, "NODE_PATH": ":".join(filter(None, folders))}
    argv = ["node", os.path.join(HERE, "jose.mjs"), *ALGORITHMS]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    if made.returncode == 3:
        pytest.skip("npm's jose is not installed (npm is missing, or could not reach its registry)")
    assert made.returncode == 0, made.stderr
    for algorithm, case in json.loads(made.stdout).items():
        (tmp_path / "node.json").write_text(json.dumps(case["jwks"]))
        words = ("--issuer", "https://id.example.com/node", "--audience", "app")
        words += ("--alg", algorithm)
        done = token("verify", "--jwks", "node.json", *words, case["token"])
        assert done.returncode == 0, (algorithm, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "signed_with, verified_with, reason, words",
    [
        (("--issuer", "a"), ("--issuer", "b"), "wrong_issuer", '(iss "a")'),
        ((), ("--issuer", "b"), "wrong_issuer", "(iss is missing)"),
        (("--audience", "a"), ("--audience", "b"), "wrong_audience", '(aud "a")'),
        (("--claim", "exp=1000"), (), "expired", "exp 1000 (1970-01-01T00:16:40.000Z)"),
        (("--lifetime", "-60"), (), "expired", ""),
        (("--claim", "nbf=9999999999"), (), "not_yet_valid", "nbf 9999999999 (2286"),
        (("--claim", 'exp="x"'), (), "bad_claim", 'exp "x"'),
        ((), ("--alg", "RS256"), "bad_algorithm", '(alg "ES256")'),
        (("--kid", "z"), (), "unknown_key", 'kid "z"; the set has "'),
        ((), ("--user-claim", "sub"), "bad_claim", ""),
    ],
)
def test_says_why_not(token, signed, signed_with, verified_with, reason, words):
    text = signed(*signed_with)
    done = token("verify", "--jwks", "k.jwks.json", *verified_with, text)
    assert done.returncode == 1
    assert done.stdout.startswith(f"invalid: {reason}: ") and words in done.stdout, done.stdout
    as_json = token("verify", "--json", "--jwks", "k.jwks.json", *verified_with, text)
    document = json.loads(as_json.stdout)
    assert document["valid"] is False and document["result"] == reason
    # The signature is good all the same, unless that is what was wrong.
    done = token("verify", "--signature-only", "--jwks", "k.jwks.json", *verified_with, text)
    assert done.returncode == (reason in ("bad_algorithm", "unknown_key"))


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "e30.e30.e30", "e30.e30.e30.", "A" * 9000])
def test_garbage_is_invalid(token, signed, text):
    done = token("verify", "--jwks", "k.jwks.json", "-", stdin=text)
    assert done.returncode == 1 and done.stdout.startswith("invalid: "), done.stdout


def test_examples_of_rfc_7515_and_8037(token, tmp_path):
    """A.1 (HS256, long expired), A.2 (RS256), A.3 (ES256), and RFC 8037 A.4, whose payload is no
    JSON."""
    cases = [
        (
            {
                "kty": "oct",
                "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAz"
                "Zr1Z9CAow",
            },
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsD"
            "QogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFW"
            "FOEjXk",
            "expired",
        ),
        (
            {
                "kty": "RSA",
                "e": "AQAB",
                "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2m"
                "JPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
                "bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo"
                "5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4F"
                "RWyuXpoQ",
            },
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGx"
            "lLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZ"
            "mh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnby"
            "TyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsq"
            "tFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_I"
            "oypGlUPQGe77Rw",
            "expired",
        ),
        (
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            },
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtc"
            "GxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxL"
            "a8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            "expired",
        ),
        (
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-0"
            "9PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            "malformed",
        ),
    ]
    for jwk, text, reason in cases:
        (tmp_path / "rfc.json").write_text(json.dumps({"keys": [jwk]}))
        done = token("verify", "--signature-only", "--jwks", "rfc.json", text)
        assert done.returncode == 0, done.stdout
        done = token("verify", "--jwks", "rfc.json", text)
        assert done.returncode == 1 and reason in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frob",),
        ("new-key",),
        ("new-key", "--alg", "none", "x"),
        ("new-key", "a", "b"),
        ("sign",),
        ("sign", "--key", "missing.pem"),
        ("sign", "--key", "k.pem", "--alg", "HS256"),
        ("sign", "--key", "k.jwks.json"),
        ("sign", "--key", "k.pem", "--claim", "x"),
        ("sign", "--key", "k.pem", "--lifetime", "--1"),
        ("verify", "x"),
        ("verify", "--jwks", "missing.json", "x"),
        ("verify", "--jwks", "k.pem", "x"),
        ("verify", "--jwks", "k.jwks.json"),
        ("verify", "--jwks", "k.jwks.json", "x", "y"),
    ],
)
def test_usage(token, signed, words):
    done = token(*words)
    assert done.returncode == 2
    assert done.stderr and not done.stdout


def test_help_mentions_everything(token, program):
    done = token("--help")
    assert done.returncode == 0
    for word in ("new-key", "sign", "verify", "--signature-only", "--jwks", "exit status"):
        assert word in done.stdout
    help_text = subprocess.run(
        [program("gatewayctl"), "--help"], capture_output=True, text=True, timeout=10
    ).stdout
    assert "token" in help_text


def test_a_gateway_takes_our_tokens(token, tmp_path, make_rig, procs):
    """A newcomer's way: a key, a gateway that trusts it, a token, a request."""
    assert token("new-key", "rider").returncode == 0
    rig = make_rig(tmp_path / "gw", procs)
    rig.config["auth"]["es"] = {
        "type": "jwt",
        "issuer": ISSUER,
        "audiences": ["app"],
        "algorithms": ["ES256"],
        "jwks": {"file": str(tmp_path / "rider.jwks.json")},
    }
    rig.start()
    words = ("--issuer", ISSUER, "--audience", "app", "--subject", "u1")
    good = token("sign", "--key", "rider.pem", *words).stdout.strip()
    bad = token("sign", "--key", "rider.pem", *words, "--claim", "exp=5").stdout.strip()
    answer = rig.ask("GET", "/es/x", bearer(good))
    assert answer.status == 200
    assert rig.ask("GET", "/es/x", bearer(bad)).status == 401
