#!/usr/bin/env node
// Does eureka-js-client, unmodified, work with our registry?
//
//     node eureka_clients.mjs --eureka http://127.0.0.1:8761/eureka [-k pattern] [--json]
//
// It reads JSON only. The package is taken from target/node (tests/run puts it there) or from
// EDGETWIN_NODE. Prints a line a test and ends with `N passed, N failed`; exits 1 if any failed.

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { check, load, run, within } from "../support/runner.mjs";

const { Eureka } = load("eureka-js-client");

const { values: args } = parseArgs({
  options: {
    eureka: { type: "string", default: "http://127.0.0.1:8761/eureka" },
    k: { type: "string", short: "k", default: "" },
    json: { type: "boolean", default: false },
  },
});

const base = new URL(args.eureka);
const RUN = randomBytes(3).toString("hex");
const quiet = { error() {}, warn() {}, info() {}, debug() {}, level() {} };
const cases = [];
const test = (name, body) => cases.push({ name, body });

function client(app, port, eureka = {}) {
  return new Eureka({
    logger: quiet,
    instance: {
      app, instanceId: `127.0.0.1:${app}:${port}`, hostName: "127.0.0.1", ipAddr: "127.0.0.1",
      port: { $: port, "@enabled": true }, vipAddress: `${app}-vip`, status: "UP",
      dataCenterInfo: {
        "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn",
      },
      metadata: { zone: "a" },
      leaseInfo: { durationInSecs: 3 },
    },
    eureka: {
      host: base.hostname, port: base.port, servicePath: `${base.pathname.replace(/\/$/, "")}/apps/`,
      heartbeatInterval: 500, registryFetchInterval: 300, maxRetries: 1, ...eureka,
    },
  });
}

const call = (object, method, ...rest) =>
  within(new Promise((resolve, reject) =>
    object[method](...rest, (error, value) => (error ? reject(error) : resolve(value)))), method);

async function known(app) {
  const reply = await fetch(`${base.href}/apps/${app}`, { headers: { Accept: "application/json" } });
  return reply.status === 404 ? [] : (await reply.json()).application.instance;
}

async function eventually(condition, what, milliseconds = 10000) {
  const end = Date.now() + milliseconds;
  while (!(await condition())) {
    check(Date.now() < end, `no ${what} within ${milliseconds} ms`);
    await sleep(50);
  }
}

test("starts, finds itself, renews, stops", async () => {
  const app = `js-${RUN}-life`;
  const eureka = client(app, 9201);
  await call(eureka, "start");
  const [seen] = eureka.getInstancesByAppId(app.toUpperCase());
  check(seen?.port.$ === 9201 && seen.port["@enabled"] === "true", JSON.stringify(seen));
  check(eureka.getInstancesByVipAddress(`${app}-vip`).length === 1, "by virtual address");
  check(seen.metadata.zone === "a" && seen.actionType === "ADDED", JSON.stringify(seen));
  await sleep(4500);
  check((await known(app)).length === 1, "kept by heartbeats beyond its lease");
  await call(eureka, "stop");
  check((await known(app)).length === 0, "gone after stop");
});

test("sees another instance come and go by deltas", async () => {
  const app = `js-${RUN}-delta`;
  const watcher = client(`${app}-watcher`, 9202, { shouldUseDelta: true });
  await call(watcher, "start");
  const other = client(app, 9203, { fetchRegistry: false });
  try {
    await call(other, "start");
    await eventually(() => watcher.getInstancesByAppId(app.toUpperCase()).length === 1, "arrival");
    await call(other, "stop");
    await eventually(() => watcher.getInstancesByAppId(app.toUpperCase()).length === 0, "departure");
  } finally {
    await call(watcher, "stop");
  }
});

test("registers again when the registry forgot it", async () => {
  const app = `js-${RUN}-back`;
  const eureka = client(app, 9204, { fetchRegistry: false });
  await call(eureka, "start");
  try {
    const path = `${base.href}/apps/${app}/${encodeURIComponent(`127.0.0.1:${app}:9204`)}`;
    check((await fetch(path, { method: "DELETE" })).status === 200, "forgotten");
    await eventually(async () => (await known(app)).length === 1, "registration after the 404");
  } finally {
    await call(eureka, "stop");
  }
});

test("instances out of service are not offered", async () => {
  const app = `js-${RUN}-out`;
  const eureka = client(app, 9205);
  await call(eureka, "start");
  try {
    const path = `${base.href}/apps/${app}/${encodeURIComponent(`127.0.0.1:${app}:9205`)}/status`;
    await fetch(`${path}?value=OUT_OF_SERVICE`, { method: "PUT" });
    await eventually(() => eureka.getInstancesByAppId(app.toUpperCase()).length === 0, "withdrawal");
    await fetch(`${path}?value=UP`, { method: "DELETE" });
    await eventually(() => eureka.getInstancesByAppId(app.toUpperCase()).length === 1, "return");
  } finally {
    await call(eureka, "stop");
  }
});

test("an empty registry has an empty list", async () => {
  const reply = await fetch(`${base.href}/vips/nobody`, { headers: { Accept: "application/json" } });
  const { applications } = await reply.json();
  check(Array.isArray(applications.application) && applications.application.length === 0,
    JSON.stringify(applications));
});

await run(cases, args);
