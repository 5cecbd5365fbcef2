#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes vectors.json: a key set and one token for each algorithm, made by PyJWT and not by our own
code. Keys are new at each run, so commit the result only when the format changes."""
import base64
import json
import os
import secrets

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, length=None):
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def claims(alg):
    return {"iss": "https://id.example.com/rider", "aud": ["rider-app", "other"], "sub": "user-" + alg,
            "iat": 1700000000, "exp": 4102444800, "scope": "pay read", "tenant": 42, "name": "Zoë"}


keys, tokens = [], []


def add(alg, key, jwk):
    jwk = dict(jwk, kid="k-" + alg, alg=alg, use="sig")
    keys.append(jwk)
    tokens.append({"alg": alg, "token": jwt.encode(claims(alg), key, algorithm=alg, headers={"kid": jwk["kid"]})})


for alg, size in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
    secret = secrets.token_bytes(size)
    add(alg, secret, {"kty": "oct", "k": b64(secret)})
rsa_key = rsa.generate_private_key(65537, 2048)
pub = rsa_key.public_key().public_numbers()
for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
    add(alg, rsa_key, {"kty": "RSA", "n": number(pub.n), "e": number(pub.e)})
for alg, curve, crv, size in (("ES256", ec.SECP256R1(), "P-256", 32), ("ES384", ec.SECP384R1(), "P-384", 48),
                              ("ES512", ec.SECP521R1(), "P-521", 66)):
    key = ec.generate_private_key(curve)
    point = key.public_key().public_numbers()
    add(alg, key, {"kty": "EC", "crv": crv, "x": number(point.x, size), "y": number(point.y, size)})
key = ed25519.Ed25519PrivateKey.generate()
add("EdDSA", key, {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))})

with open(os.path.join(os.path.dirname(__file__), "vectors.json"), "w", encoding="utf-8") as out:
    json.dump({"jwks": {"keys": keys}, "tokens": tokens}, out, indent=1)
    out.write("\n")
