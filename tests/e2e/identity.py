# SPDX-License-Identifier: Apache-2.0
"""Certificates, signing keys, key sets and tokens, made afresh for each run by the openssl program.

Standard library only, so that the demo needs nothing but what a bare machine gets anyway. The
tests check the same gateways with tokens of an independent library as well.
"""

import base64
import copy
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time


def openssl(*words, data=None):
    done = subprocess.run(["openssl", *words], input=data, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Authority:
    """A certificate authority of one run."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.certificate = os.path.join(directory, "ca.crt")
        self.key = os.path.join(directory, "ca.key")
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=gatehouse test authority", "-days", "2"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", self.key, "-out", self.certificate),
        )

    def issue_once(self, name, dns_names):
        """Like issue(), but only the first time."""
        paths = tuple(os.path.join(self.directory, f"{name}.{kind}") for kind in ("crt", "key"))
        return paths if os.path.exists(paths[0]) else self.issue(name, dns_names)

    def issue(self, name, dns_names, kind="ec", directory=None, usage="serverAuth", names=()):
        """Writes name.crt and name.key; returns their paths. `names`: further ones, "URI:…"."""
        base = os.path.join(directory or self.directory, name)
        key_options = {
            "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            "rsa": ("-newkey", "rsa:2048"),
        }[kind]
        openssl(
            *("req", *key_options, "-nodes", "-subj", f"/CN={dns_names[0]}"),
            *("-keyout", f"{base}.key", "-out", f"{base}.csr"),
        )
        with open(f"{base}.ext", "w", encoding="ascii") as file:
            alternatives = [f"DNS:{n}" for n in dns_names] + list(names)
            file.write("subjectAltName=" + ",".join(alternatives) + "\n")
            file.write(f"extendedKeyUsage={usage}\n")
        openssl(
            *("x509", "-req", "-in", f"{base}.csr", "-CA", self.certificate, "-CAkey", self.key),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{base}.ext", "-out", f"{base}.crt"),
        )
        return f"{base}.crt", f"{base}.key"


class Signer:
    """One token issuer: its key, the key set a gateway reads, and the tokens it signs."""

    def __init__(self, directory, name, algorithm, issuer, audience):
        self.algorithm = algorithm
        self.issuer = issuer
        self.audience = audience
        self.kid = f"{name}-1"
        os.makedirs(directory, exist_ok=True)
        self.key = os.path.join(directory, f"{name}.pem")
        self.jwks = os.path.join(directory, f"{name}.jwks.json")
        if algorithm == "HS256":
            self.secret = os.urandom(32)
            public = {"kty": "oct", "k": b64url(self.secret)}
        elif algorithm == "RS256":
            self._generate("RSA", "rsa_keygen_bits:2048")
            modulus = openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip()
            public = {
                "kty": "RSA",
                "n": b64url(bytes.fromhex(modulus.partition("=")[2])),
                "e": b64url(b"\x01\x00\x01"),
            }
        elif algorithm == "ES256":
            self._generate("EC", "ec_paramgen_curve:P-256")
            point = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-64:]
            public = {
                "kty": "EC",
                "crv": "P-256",
                "x": b64url(point[:32]),
                "y": b64url(point[32:]),
            }
        else:
            raise ValueError(algorithm)
        public.update(kid=self.kid, alg=algorithm, use="sig")
        with open(self.jwks, "w", encoding="ascii") as file:
            json.dump({"keys": [public]}, file, indent=2)

    def copy_to(self, directory):
        """The same issuer with a key-set file of its own there; keys are costly to make."""
        twin = copy.copy(self)
        os.makedirs(directory, exist_ok=True)
        twin.jwks = os.path.join(directory, os.path.basename(self.jwks))
        shutil.copyfile(self.jwks, twin.jwks)
        return twin

    def _generate(self, kind, option):
        openssl("genpkey", "-algorithm", kind, "-pkeyopt", option, "-out", self.key)

    def token(self, subject, lifetime_s=600, claims=None, header=None):
        now = int(time.time())
        payload = {"iss": self.issuer, "aud": self.audience, "sub": subject}
        payload.update(iat=now, exp=now + lifetime_s, **(claims or {}))
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
        signed = ".".join(b64url(json.dumps(part).encode()) for part in (head, payload))
        return signed + "." + b64url(self.sign(signed.encode()))

    def sign(self, data):
        if self.algorithm == "HS256":
            return hmac.new(self.secret, data, hashlib.sha256).digest()
        signature = openssl("dgst", "-sha256", "-sign", self.key, data=data)
        return signature if self.algorithm == "RS256" else _raw_ecdsa(signature)


def _raw_ecdsa(der):
    """r and s of 32 bytes each, as JWS wants them, from openssl's DER."""
    match = re.match(rb"^\x30.\x02(.)", der, re.DOTALL)
    r_len = match[1][0]
    r = der[4 : 4 + r_len]
    s = der[4 + r_len + 2 :]
    return b"".join(part.lstrip(b"\x00").rjust(32, b"\x00") for part in (r, s))
