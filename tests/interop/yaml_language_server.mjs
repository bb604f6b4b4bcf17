// The schema in the editor: yaml-language-server accepts every example, finds mistakes at their
// place, and completes just the fields of the kind at hand.
//
// Usage: node yaml_language_server.mjs SERVER EDGETWIN
//   SERVER:   path of yaml-language-server's bin/yaml-language-server
//   EDGETWIN: path of the edgetwin binary
// Run in the project's root. Exit code 0 if all holds.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import assert from 'node:assert/strict';

const [server, edgetwin] = process.argv.slice(2);
const directory = mkdtempSync(join(tmpdir(), 'edgetwin-schema-'));
const schema = join(directory, 'schema.json');
writeFileSync(schema, execFileSync(edgetwin, ['schema']));
const modeline = `# yaml-language-server: $schema=${schema}\n`;

const child = spawn('node', [server, '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'] });
const waiting = new Map();
const diagnostics = new Map();
let received = Buffer.alloc(0);
let lastId = 0;

function send(message) {
  const body = JSON.stringify({ jsonrpc: '2.0', ...message });
  child.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

function request(method, params) {
  const id = ++lastId;
  send({ id, method, params });
  return new Promise((resolve) => waiting.set(id, resolve));
}

function handle(message) {
  if (message.method === 'textDocument/publishDiagnostics') {
    const { uri } = message.params;
    diagnostics.get(uri)?.(message.params.diagnostics);
  } else if (message.method && message.id !== undefined) {
    const yaml = { validate: true, hover: true, completion: true };
    const result = message.params.items?.map((item) => (item.section === 'yaml' ? yaml : {})) ?? null;
    send({ id: message.id, result });
  } else if (message.id !== undefined) {
    waiting.get(message.id)?.(message.result);
  }
}

child.stdout.on('data', (data) => {
  received = Buffer.concat([received, data]);
  for (;;) {
    const end = received.indexOf('\r\n\r\n');
    const length = end < 0 ? NaN : Number(/Content-Length: (\d+)/.exec(received.subarray(0, end))[1]);
    if (!(received.length >= end + 4 + length)) return;
    handle(JSON.parse(received.subarray(end + 4, end + 4 + length)));
    received = received.subarray(end + 4 + length);
  }
});

// Opens a document and resolves to what the server says of it, as "line:column message".
function open(name, text) {
  const uri = `file://${directory}/${name}`;
  const answer = new Promise((resolve) => diagnostics.set(uri, resolve));
  const textDocument = { uri, languageId: 'yaml', version: 1, text: modeline + text };
  send({ method: 'textDocument/didOpen', params: { textDocument } });
  return answer.then((all) =>
    all.map(({ range, message }) => `${range.start.line}:${range.start.character + 1} ${message}`).sort(),
  );
}

const deadline = setTimeout(() => {
  console.error('no answer from yaml-language-server within 60 s');
  process.exit(1);
}, 60_000);

const capabilities = { workspace: { configuration: true } };
await request('initialize', { processId: process.pid, rootUri: `file://${directory}`, capabilities });
send({ method: 'initialized', params: {} });

let examples = 0;
for (const path of readdirSync('manifests', { recursive: true }).filter((path) => path.endsWith('.yaml'))) {
  const name = path.replaceAll('/', '-');
  assert.deepEqual(await open(name, readFileSync(join('manifests', path), 'utf8')), [], path);
  examples += 1;
}
assert.ok(examples > 5, `${examples} examples`);

const mistakes = await open('mistakes.yaml', 'kind: Twin\nmetadata: {name: a}\nspec: {modle: x, services: 3}\n');
assert.equal(mistakes.length, 2, mistakes.join('\n'));
assert.ok(mistakes.every((mistake) => mistake.startsWith('3:')), mistakes.join('\n'));
assert.ok(mistakes.some((mistake) => mistake.includes('modle')), mistakes.join('\n'));

await open('completion.yaml', 'kind: Twin\nmetadata:\n  name: a\nspec:\n  model: m\n  ');
const found = await request('textDocument/completion', {
  textDocument: { uri: `file://${directory}/completion.yaml` },
  position: { line: 6, character: 2 },
});
const labels = (found.items ?? found).map((item) => item.label).sort();
assert.deepEqual(labels, ['attributes', 'desired', 'node', 'services', 'transmission']);

clearTimeout(deadline);
child.kill();
rmSync(directory, { recursive: true });
console.log(`yaml-language-server accepts ${examples} examples, finds mistakes, completes by kind`);
