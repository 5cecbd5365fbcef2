// SPDX-License-Identifier: Apache-2.0
// Tokens for every algorithm by npm's jose, an implementation that shares nothing with ours:
// prints {"ALG": {"jwks": …, "token": …}}. Exit status 3 when there is no such library.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

let jose;
try {
  // import ignores NODE_PATH, require does not.
  jose = await import(pathToFileURL(createRequire(import.meta.url).resolve("jose")).href);
  jose = jose.SignJWT ? jose : jose.default;
} catch {
  process.exit(3);
}

const out = {};
for (const alg of process.argv.slice(2)) {
  let key, jwk;
  if (alg.startsWith("HS")) {
    key = crypto.getRandomValues(new Uint8Array(64));
    jwk = await jose.exportJWK(key);
  } else {
    const options = { extractable: true, crv: alg === "EdDSA" ? "Ed25519" : undefined };
    const pair = await jose.generateKeyPair(alg, options);
    key = pair.privateKey;
    jwk = await jose.exportJWK(pair.publicKey);
  }
  const token = await new jose.SignJWT({ scope: "read" })
    .setProtectedHeader({ alg, kid: `node-${alg}` })
    .setIssuer("https://id.example.com/node")
    .setAudience(["app", "other"])
    .setSubject("user-1")
    .setIssuedAt()
    .setExpirationTime("10m")
    .sign(key);
  out[alg] = { jwks: { keys: [{ ...jwk, kid: `node-${alg}`, use: "sig" }] }, token };
}
console.log(JSON.stringify(out));
