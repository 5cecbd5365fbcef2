# SPDX-License-Identifier: Apache-2.0
"""Many tokens quickly: the tests' signer with python3-cryptography in place of a process per token."""

import hashlib
import hmac
import json
import os

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from identity import Signer, b64url


class BulkSigner(Signer):
    def __init__(self, directory, name, algorithm, issuer, audience):
        super().__init__(directory, name, algorithm, issuer, audience)
        self.private = None
        if algorithm == "HS256":
            # HAProxy takes the secret as text.
            self.secret = os.urandom(16).hex().encode()
            key = {"kty": "oct", "k": b64url(self.secret), "kid": self.kid, "alg": "HS256"}
            with open(self.jwks, "w", encoding="ascii") as file:
                json.dump({"keys": [key]}, file)
        else:
            with open(self.key, "rb") as file:
                self.private = serialization.load_pem_private_key(file.read(), None)

    def sign(self, data):
        if self.algorithm == "HS256":
            return hmac.new(self.secret, data, hashlib.sha256).digest()
        if self.algorithm == "RS256":
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def write_users(path, signer, users, tokens):
    """A line per token for request.lua: the device, and the token of its user unless signer is
    None. Tokens of one user differ by their id."""
    with open(path, "w", encoding="ascii") as file:
        for i in range(tokens):
            user = f"user-{i % users:04}"
            line = f"device-{i % users:04}"
            if signer:
                claims = {"jti": f"{i:08x}", "scope": "profile feed", "role": "rider"}
                line += " " + signer.token(user, 86400, claims)
            file.write(line + "\n")
    return path
