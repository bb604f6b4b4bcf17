#!/usr/bin/env node
// Does Eclipse Ditto's own JavaScript client work, unmodified, over HTTP?
//
//     node ditto_clients.mjs --http http://127.0.0.1:8080 [-k pattern] [--json]
//
// The package is taken from target/node (tests/run puts it there) or from EDGETWIN_NODE. Prints a
// line a test and ends with `N passed, N failed`; exits 1 if any failed.

import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";

import { check, load, range, run, same } from "../support/runner.mjs";

const ditto = load("@eclipse-ditto/ditto-javascript-client-node");

const { values: args } = parseArgs({
  options: {
    http: { type: "string", default: "http://127.0.0.1:8080" },
    k: { type: "string", short: "k", default: "" },
    json: { type: "boolean", default: false },
  },
});

// The client always sends credentials; these are the ones that Ditto's own examples use.
const client = ditto.DittoNodeClient.newHttpClient()
  .withoutTls()
  .withDomain(new URL(args.http).host)
  .withAuthProvider(ditto.NodeHttpBasicAuth.newInstance("ditto", "ditto"))
  .build();
const things = client.getThingsHandle();
const search = client.getSearchHandle();

const NS = `js${randomBytes(3).toString("hex")}`;
let number = 0;
const name = () => `${NS}:thing-${++number}`;
const thing = (object) => ditto.Thing.fromObject(object);
const match = () => ditto.DefaultMatchOptions.getInstance();
const fields = (...names) => ditto.DefaultFieldsOptions.getInstance().withFields(...names);
const cases = [];
const test = (title, body) => cases.push({ name: title, body });

async function made(parts = {}) {
  const thingId = name();
  const reply = await things.putThing(thing({ thingId, ...parts }));
  check(reply.wasCreated(), `PUT of a new thing: ${reply.status}`);
  return thingId;
}

/** The call is refused with this status and error code. */
async function refused(promise, status, code) {
  let reply;
  try {
    await promise;
  } catch (error) {
    reply = error;
  }
  check(reply !== undefined, `not refused with ${status}`);
  check(reply.status === status, `status ${reply.status ?? reply}, not ${status}`);
  check(!code || reply.body.error === code, `${JSON.stringify(reply.body)}, not ${code}`);
}

test("put_get_delete_thing", async () => {
  const thingId = await made({
    definition: "a:b:1", attributes: { a: 1 }, features: { f: { properties: { x: 2 } } },
  });
  const found = await things.getThing(thingId);
  check(found.thingId === thingId && found.policyId === thingId, JSON.stringify(found));
  check(same(found.attributes, { a: 1 }) && found.definition === "a:b:1", JSON.stringify(found));
  check(same(found.features.f.properties, { x: 2 }), JSON.stringify(found));
  const replaced = await things.putThing(thing({ thingId, attributes: { b: 1 } }));
  check(replaced.wasUpdated() && replaced.status === 204, `${replaced.status}`);
  check((await things.deleteThing(thingId)).status === 204, "DELETE");
  await refused(things.getThing(thingId), 404, "things:thing.notfound");
});

test("post_thing", async () => {
  const created = await things.postThing({ attributes: { a: 1 } });
  check(created.thingId.includes(":") && created.attributes.a === 1, JSON.stringify(created));
  await things.deleteThing(created.thingId);
});

test("patch_thing", async () => {
  const thingId = await made({ attributes: { a: 1, b: { c: 1 } } });
  const reply = await things.patchThing(thing({ thingId, attributes: { a: null, b: { d: 2 } } }));
  check(reply.status === 204, `${reply.status}`);
  const found = await things.getThing(thingId);
  check(same(found.attributes, { b: { c: 1, d: 2 } }), JSON.stringify(found.attributes));
});

test("get_things_and_fields", async () => {
  const ids = [await made({ attributes: { n: 1 } }), await made({ attributes: { n: 2 } })];
  const found = await things.getThings([...ids, `${NS}:none`]);
  check(same(found.map((t) => t.thingId).sort(), [...ids].sort()), JSON.stringify(found));
  const part = await things.getThing(ids[0], fields("thingId", "attributes/n", "_revision"));
  check(part.attributes.n === 1 && part._revision === 1 && !part.policyId, JSON.stringify(part));
});

test("attributes", async () => {
  const thingId = await made();
  check((await things.putAttributes(thingId, { a: 1 })).wasCreated(), "PUT attributes");
  check((await things.putAttributes(thingId, { a: { b: 1 } })).wasUpdated(), "PUT attributes again");
  check((await things.putAttribute(thingId, "a/c", [1, "x"])).wasCreated(), "PUT attribute");
  check(same(await things.getAttribute(thingId, "a/c"), [1, "x"]), "GET attribute");
  await things.patchAttributes(thingId, { a: { b: null }, d: true });
  await things.patchAttribute(thingId, "e/f", 5);
  const found = await things.getAttributes(thingId);
  check(same(found, { a: { c: [1, "x"] }, d: true, e: { f: 5 } }), JSON.stringify(found));
  await things.deleteAttribute(thingId, "a/c");
  await refused(things.getAttribute(thingId, "a/c"), 404, "things:attribute.notfound");
  await things.deleteAttributes(thingId);
  await refused(things.getAttributes(thingId), 404, "things:attributes.notfound");
});

test("definition_and_policy_id", async () => {
  const thingId = await made();
  check((await things.putDefinition(thingId, "a:b:1")).wasCreated(), "PUT definition");
  check((await things.putDefinition(thingId, "a:b:2")).wasUpdated(), "PUT definition again");
  await things.patchDefinition(thingId, "a:b:1");
  check(await things.getDefinition(thingId) === "a:b:1", "GET definition");
  await things.deleteDefinition(thingId);
  await refused(things.getDefinition(thingId), 404, "things:definition.notfound");
  check(await things.getPolicyId(thingId) === thingId, "GET policyId");
});

test("features_and_properties", async () => {
  const thingId = await made();
  const features = client.getFeaturesHandle(thingId);
  const feature = (id, properties) => new ditto.Feature(id, undefined, properties);
  check((await features.putFeature(feature("f", { x: 1 }))).wasCreated(), "PUT feature");
  check((await features.putProperty("f", "y/z", 2)).wasCreated(), "PUT property");
  check(await features.getProperty("f", "y/z") === 2, "GET property");
  check((await features.putProperties("f", { x: 3 })).wasUpdated(), "PUT properties");
  await features.patchProperties("f", { w: 4 });
  await features.patchProperty("f", "v", { u: 5 });
  check(same(await features.getProperties("f"), { x: 3, w: 4, v: { u: 5 } }), "GET properties");
  check((await features.putDefinition("f", ["a:b:1"])).wasCreated(), "PUT definition");
  check(same(await features.getDefinition("f"), ["a:b:1"]), "GET definition");
  await features.putFeature(feature("g", { x: 9 }));
  const all = await features.getFeatures();
  check(same(Object.keys(all).sort(), ["f", "g"]), JSON.stringify(all));
  await features.deleteProperty("f", "v/u");
  await features.deleteDefinition("f");
  await features.deleteFeature("g");
  await refused(features.getFeature("g"), 404, "things:feature.notfound");
  await refused(features.getProperty("f", "none"), 404, "things:feature.property.notfound");
  await features.deleteProperties("f");
  await refused(features.getProperties("f"), 404, "things:feature.properties.notfound");
  await features.deleteFeatures();
  await refused(features.getFeatures(), 404, "things:features.notfound");
});

test("preconditions", async () => {
  const thingId = await made({ attributes: { a: 1 } });
  const reply = await things.putAttribute(thingId, "a", 2, match().ifMatchAny());
  check(reply.wasUpdated(), `${reply.status}`);
  await refused(things.putThing(thing({ thingId }), match().ifMatch('"rev:1"')), 412,
    "things:precondition.failed");
  await refused(things.putThing(thing({ thingId }), match().ifNoneMatchAny()), 412,
    "things:precondition.failed");
  check((await things.putThing(thing({ thingId }), match().ifMatch('"rev:2"'))).wasUpdated(), "If-Match");
  await refused(things.getThing(thingId, ditto.DefaultFieldsOptions.getInstance().ifNoneMatch('"rev:3"')), 304);
});

test("search", async () => {
  const ids = [];
  for (const n of range(5)) ids.push(await made({ attributes: { run: NS, n, even: n % 2 === 0 } }));
  const find = async (filter) => {
    const options = ditto.DefaultSearchOptions.getInstance().withFilter(filter);
    return (await search.search(options)).items.map((t) => t.thingId).sort();
  };
  const run_ = ditto.Eq("attributes/run", NS);
  check(same(await find(run_), [...ids].sort()), "eq");
  check(same(await find(ditto.And(run_, ditto.Eq("attributes/n", 3))), [ids[3]]), "and, eq of a number");
  check(same(await find(ditto.And(run_, ditto.Eq("attributes/even", true))), [ids[0], ids[2], ids[4]].sort()),
    "and, eq of a boolean");
  check((await find(ditto.And(run_, ditto.Exists("features/none")))).length === 0, "exists");
  const options = ditto.DefaultSearchOptions.getInstance().withFilter(run_);
  const posted = await search.postSearch(options);
  check(posted.items.length === 5, `POST: ${posted.items.length} of 5`);
  await refused(search.search(ditto.DefaultSearchOptions.getInstance().withRawFilter("nonsense(")), 400,
    "rql.expression.invalid");
});

await run(cases, args);
