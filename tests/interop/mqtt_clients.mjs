#!/usr/bin/env node
// Does npm's unmodified `mqtt` client work, in both versions of the protocol?
//
//     node mqtt_clients.mjs --port 1883 [--host H] [--version 3.1.1|5|both] [-k pattern] [--json]
//
// The package is taken from target/node (tests/run puts it there) or from EDGETWIN_NODE. Prints a
// line a test and ends with `N passed, N failed`; exits 1 if any failed.

import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";

import { check, load, range, run, same, within } from "../support/runner.mjs";

const mqtt = load("mqtt");

const { values: args } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "1883" },
    version: { type: "string", default: "both" },
    k: { type: "string", short: "k", default: "" },
    json: { type: "boolean", default: false },
  },
});

const WINDOW = 15; // messages in flight: below the Receive Maximum of any server
const RUN = randomBytes(3).toString("hex");
const tests = [];
const test = (name, versions, body) => tests.push({ name, versions, body });
const BOTH = ["3.1.1", "5"];

/** A connected client whose messages wait in a queue. */
class Client {
  constructor(raw) {
    this.raw = raw;
    this.queue = [];
    this.waiting = [];
    raw.on("message", (topic, payload, packet) => {
      const found = { topic, payload: payload.toString(), packet };
      const waiter = this.waiting.shift();
      if (waiter) waiter(found);
      else this.queue.push(found);
    });
    raw.on("error", () => {});
  }

  event(name) {
    return within(new Promise((resolve) => this.raw.once(name, resolve)), name);
  }

  message() {
    if (this.queue.length) return Promise.resolve(this.queue.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }

  async messages(count) {
    const found = [];
    while (found.length < count) found.push(await this.message());
    return found;
  }

  publish(topic, payload, options) {
    return within(this.raw.publishAsync(topic, payload, options), "acknowledgement");
  }

  async subscribe(topic, options) {
    const granted = await within(this.raw.subscribeAsync(topic, options), "SUBACK");
    check(granted.every((g) => g.qos < 128), `SUBACK ${JSON.stringify(granted)}`);
  }

  end() {
    return within(this.raw.endAsync(), "end");
  }
}

let number = 0;
class Context {
  constructor(version) {
    this.version = version;
    this.v5 = version === "5";
    this.number = ++number;
    this.clients = [];
  }

  topic(rest = "t") {
    return `js/${RUN}/${this.number}/${rest}`;
  }

  async connect(name, options = {}, persistent = false) {
    const raw = mqtt.connect({
      host: args.host,
      port: Number(args.port),
      protocol: "mqtt",
      protocolVersion: this.v5 ? 5 : 4,
      clientId: `j${RUN}n${this.number}${name}`,
      clean: !persistent,
      reconnectPeriod: 200,
      ...options,
      properties: this.v5
        ? { ...(persistent ? { sessionExpiryInterval: 300 } : {}), ...options.properties }
        : undefined,
    });
    const client = new Client(raw);
    this.clients.push(client);
    client.connack = await client.event("connect");
    return client;
  }

  async finish() {
    await Promise.all(
      this.clients.map((client) => new Promise((resolve) => client.raw.end(true, {}, resolve))),
    );
  }
}

test("each_qos", BOTH, async (t) => {
  const sender = await t.connect("s");
  for (const granted of [0, 1, 2]) {
    const watch = await t.connect(`w${granted}`);
    await watch.subscribe(t.topic(`${granted}`), { qos: granted });
    for (const qos of [0, 1, 2]) {
      await sender.publish(t.topic(`${granted}`), `m${qos}`, { qos });
      const found = await watch.message();
      check(found.payload === `m${qos}` && found.packet.qos === Math.min(qos, granted),
        `${found.payload} at QoS ${found.packet.qos}`);
    }
  }
});

test("thousand_in_order", BOTH, async (t) => {
  for (const qos of [0, 1, 2]) {
    const watch = await t.connect(`w${qos}`);
    await watch.subscribe(t.topic(`${qos}`), { qos });
    const sender = await t.connect(`s${qos}`);
    const acks = [];
    for (const n of range(1000)) {
      acks.push(sender.publish(t.topic(`${qos}`), `${n}`, { qos }));
      if (qos && n >= WINDOW) await acks[n - WINDOW]; // the client has no window of its own
    }
    const found = (await watch.messages(1000)).map((m) => Number(m.payload));
    check(same(found, range(1000)), `QoS ${qos}: out of order, or lost`);
    await Promise.all(acks);
  }
});

test("retained", BOTH, async (t) => {
  const sender = await t.connect("s");
  await sender.publish(t.topic(), "kept", { qos: 1, retain: true });
  const late = await t.connect("l");
  await late.subscribe(t.topic(), { qos: 1 });
  const found = await late.message();
  check(found.payload === "kept" && found.packet.retain, "not kept");
  await sender.publish(t.topic(), "", { qos: 1, retain: true });
  const cleared = await late.message();
  check(cleared.payload === "" && !cleared.packet.retain, "clear not seen");
});

test("will", BOTH, async (t) => {
  const watch = await t.connect("w");
  await watch.subscribe(t.topic("will"), { qos: 2 });
  const will = (payload) => ({
    reconnectPeriod: 0,
    will: { topic: t.topic("will"), payload: Buffer.from(payload), qos: 1, retain: false },
  });
  await (await t.connect("a", will("ended"))).end();
  const broken = await t.connect("b", will("broken"));
  broken.raw.stream.destroy();
  const found = await watch.message();
  check(found.payload === "broken" && found.packet.qos === 1, `will ${found.payload}`);
});

test("persistent_session", BOTH, async (t) => {
  const first = await t.connect("p", {}, true);
  check(!first.connack.sessionPresent, "session present for a new client");
  await first.subscribe(t.topic(), { qos: 2 });
  await first.end();
  const sender = await t.connect("s");
  for (const n of range(50)) await sender.publish(t.topic(), `${n}`, { qos: 1 + (n % 2) });
  const second = await t.connect("p", {}, true);
  check(second.connack.sessionPresent, "session not present");
  const found = (await second.messages(50)).map((m) => Number(m.payload));
  for (const parity of [0, 1]) { // order holds for each QoS
    const expected = range(50).filter((n) => n % 2 === parity);
    check(same(found.filter((n) => n % 2 === parity), expected), `${found}`);
  }
});

test("subscriber_reconnects", BOTH, async (t) => {
  const watch = await t.connect("w", { resubscribe: false }, true);
  await watch.subscribe(t.topic(), { qos: 1 });
  const sender = await t.connect("s");
  const back = watch.event("connect");
  watch.raw.stream.destroy();
  for (const n of range(100)) await sender.publish(t.topic(), `${n}`, { qos: 1 });
  check((await back).sessionPresent, "session not present after a reconnect");
  const seen = new Set();
  while (seen.size < 100) seen.add(Number((await watch.message()).payload));
});

test("publisher_reconnects", BOTH, async (t) => {
  const watch = await t.connect("w");
  await watch.subscribe(t.topic(), { qos: 2 });
  const sender = await t.connect("s", {}, true);
  const acks = [];
  for (const n of range(200)) {
    acks.push(sender.publish(t.topic(), `${n}`, { qos: 2 }));
    if (n === 50) sender.raw.stream.destroy();
    if (n >= WINDOW) await acks[n - WINDOW];
  }
  await Promise.all(acks);
  await sender.publish(t.topic(), "end", { qos: 2 });
  const found = [];
  for (;;) {
    const { payload } = await watch.message();
    if (payload === "end") break;
    found.push(Number(payload));
  }
  check(same([...found].sort((a, b) => a - b), range(200)), `${found.length} of 200, or twice`);
});

test("unsubscribe", BOTH, async (t) => {
  const client = await t.connect("c");
  await client.subscribe([t.topic("a"), t.topic("b")], { qos: 1 });
  await within(client.raw.unsubscribeAsync(t.topic("a")), "UNSUBACK");
  await client.publish(t.topic("a"), "a", { qos: 1 });
  await client.publish(t.topic("b"), "b", { qos: 1 });
  check((await client.message()).payload === "b", "message after unsubscribing");
});

test("large_payload", BOTH, async (t) => {
  const client = await t.connect("c");
  await client.subscribe(t.topic(), { qos: 1 });
  const payload = "x".repeat(200000);
  await client.publish(t.topic(), payload, { qos: 1 });
  check((await client.message()).payload === payload, "changed");
});

test("properties", ["5"], async (t) => {
  const watch = await t.connect("w");
  await watch.subscribe(t.topic(), { qos: 1, nl: true, properties: { subscriptionIdentifier: 7 } });
  await watch.publish(t.topic(), "own", { qos: 1 });
  const sender = await t.connect("s");
  const properties = {
    contentType: "text/plain",
    responseTopic: "re/ply",
    correlationData: Buffer.from([0, 255]),
    userProperties: { a: ["1", "2"] },
  };
  await sender.publish(t.topic(), "x", { qos: 1, properties });
  const found = await watch.message();
  check(found.payload === "x", "own message despite No Local");
  const got = found.packet.properties;
  check(got.contentType === "text/plain" && got.responseTopic === "re/ply"
    && got.correlationData.equals(properties.correlationData)
    && same(got.userProperties.a, ["1", "2"]) && got.subscriptionIdentifier === 7,
  JSON.stringify(got));
});

test("topic_aliases", ["5"], async (t) => {
  const watch = await t.connect("w", { properties: { topicAliasMaximum: 5 } });
  await watch.subscribe(t.topic("#"), { qos: 1 });
  const sender = await t.connect("s", { autoAssignTopicAlias: true });
  for (const n of range(30)) await sender.publish(t.topic(`${n % 8}`), `${n}`, { qos: 1 });
  for (const n of range(30)) {
    const found = await watch.message();
    check(found.topic === t.topic(`${n % 8}`) && found.payload === `${n}`, `${found.topic}`);
  }
});

test("shared_subscription", ["5"], async (t) => {
  const members = [await t.connect("a"), await t.connect("b")];
  for (const member of members) await member.subscribe(`$share/g/${t.topic()}`, { qos: 1 });
  const seen = [[], []];
  let done;
  const all = new Promise((resolve) => { done = resolve; });
  members.forEach((member, index) => member.raw.on("message", (_, payload) => {
    seen[index].push(Number(payload));
    if (seen[0].length + seen[1].length === 100) done();
  }));
  const sender = await t.connect("s");
  for (const n of range(100)) await sender.publish(t.topic(), `${n}`, { qos: 1 });
  await within(all, `100 messages, ${seen[0].length} + ${seen[1].length} so far`);
  check(same(seen.flat().sort((a, b) => a - b), range(100)), "twice or lost");
  check(seen[0].length && seen[1].length, "one member got all");
});

await run(
  tests.flatMap(({ name, versions, body }) => versions
    .filter((version) => ["both", version].includes(args.version))
    .map((version) => ({
      name: `npm_${name}`,
      version,
      body: async () => {
        const context = new Context(version);
        try {
          await body(context);
        } finally {
          await context.finish();
        }
      },
    }))),
  args,
);
