// Runs the tests of a script and prints them in the way all of them do: a line a test,
// `N passed, N failed` at the end, exit code 1 if any failed.

import { isDeepStrictEqual } from "node:util";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Loads a package from target/node, where tests/run puts it, or from EDGETWIN_NODE. */
export const load = createRequire(
  join(process.env.EDGETWIN_NODE ?? join(root, "target", "node"), "package.json"),
);

/** A test's expectation did not hold. */
export class Failed extends Error {}

export function check(condition, message) {
  if (!condition) throw new Failed(message);
}

/** Equal as JSON values: the order of an object's members says nothing. */
export const same = (a, b) => isDeepStrictEqual(a, b);

export const range = (count) => [...Array(count).keys()];

/** The promise, or a failure after a deadline. */
export function within(promise, what, milliseconds = 15000) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`no ${what} within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

/** Runs `{name, version, body}` whose name holds `pattern`, and ends the process. */
export async function run(cases, { k: pattern, json }) {
  const results = [];
  for (const { name, version = "", body } of cases) {
    if (!name.includes(pattern)) continue;
    let detail = "";
    try {
      await body();
    } catch (error) {
      const text = error instanceof Failed ? error.message : `${error?.name ?? "error"}: ${error?.message}`;
      detail = error?.status ? `status ${error.status} ${JSON.stringify(error.body)}` : text;
    }
    const outcome = detail ? "FAIL" : "ok";
    results.push({ test: name, version, outcome, detail });
    if (!json) {
      const shown = version ? version.padEnd(6) : "";
      console.log(`${outcome.padEnd(5)} ${shown}${name}${detail ? `: ${detail}` : ""}`);
    }
  }
  const failed = results.filter((r) => r.outcome === "FAIL").length;
  const passed = results.length - failed;
  console.log(json ? JSON.stringify({ passed, failed, tests: results }, null, 1)
    : `${passed} passed, ${failed} failed`);
  process.exit(failed || !results.length ? 1 : 0);
}
