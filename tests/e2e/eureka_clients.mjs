// SPDX-License-Identifier: Apache-2.0
// npm's Eureka clients, unmodified, driven by a test: reads commands from standard input, one JSON
// document a line, and writes answers and events the same way. Exit status 3 without the library.
//
//   node eureka_clients.mjs eureka-js-client|eureka-nodejs-client
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const [library] = process.argv.slice(2);
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);
// What they log goes to where a failing test shows it.
console.log = console.error;

let loaded;
try {
  // import ignores NODE_PATH, require does not.
  loaded = require(library);
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
  process.exit(3);
}

const short = (i) => `${i.hostName}:${i.port.$}`;
const done = (call) =>
  new Promise((good, bad) => call((error) => (error ? bad(error) : good(null))));

function jsClient() {
  let client;
  return {
    start(config) {
      const quiet = () => {};
      const logger = { debug: quiet, info: quiet, warn: console.error, error: console.error };
      client = new loaded.Eureka({ ...config, logger });
      for (const event of ["started", "registered", "deregistered", "heartbeat", "registryUpdated"])
        client.on(event, () => say({ event }));
      return done((callback) => client.start(callback));
    },
    fetch: () => done((callback) => client.fetchRegistry(callback)),
    app: (name) => client.getInstancesByAppId(name).map(short),
    vip: (name) => client.getInstancesByVipAddress(name).map(short),
    status: (name) => client.getInstancesByAppId(name).map((i) => i.status),
    metadata: (name) => client.getInstancesByAppId(name).map((i) => i.metadata),
    stop: () => done((callback) => client.stop(callback)),
  };
}

function nodejsClient() {
  const logger = { debug() {}, info() {}, error: console.error };
  let client;
  return {
    start(config) {
      client = loaded({ ...config, logger });
      client.start();
    },
    instance: async (name) => short(await client.instance(name)),
    stop() {
      client.stop();
      return client.delete();
    },
  };
}

const commands = library === "eureka-js-client" ? jsClient() : nodejsClient();
say({ event: "ready" });
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = JSON.parse(line);
  try {
    say({ answer: (await commands[name](...words)) ?? null });
  } catch (error) {
    say({ error: String(error) });
  }
}
process.exit(0);
