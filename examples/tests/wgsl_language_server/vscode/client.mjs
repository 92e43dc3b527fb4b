// The client library of VS Code, against the language server: `node client.mjs SERVER CACHE_DIR`.
// The texts are those of the library's own document, so that two of one opinion meet here.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  CancellationTokenSource,
  CodeLensRequest,
  DidChangeTextDocumentNotification,
  DidCloseTextDocumentNotification,
  DidOpenTextDocumentNotification,
  DidSaveTextDocumentNotification,
  ExecuteCommandRequest,
  ExitNotification,
  HoverRequest,
  InitializeRequest,
  InitializedNotification,
  LogMessageNotification,
  PublishDiagnosticsNotification,
  ShowDocumentRequest,
  ShowMessageNotification,
  ShutdownRequest,
  StreamMessageReader,
  StreamMessageWriter,
  createProtocolConnection,
} from "vscode-languageserver-protocol/node";
import { TextDocument } from "vscode-languageserver-textdocument";

const [program, cache] = process.argv.slice(2);
const server = spawn(program, ["--cache-dir", cache, "--stdio"], {
  stdio: ["pipe", "pipe", "inherit"],
});
const ended = new Promise((resolve) => server.on("exit", resolve));
const connection = createProtocolConnection(
  new StreamMessageReader(server.stdout),
  new StreamMessageWriter(server.stdin),
);
connection.onError(([error]) => {
  throw error;
});

// The diagnostics of each document, by version, and who waits for one.
const published = new Map();
let waiting = [];
connection.onNotification(PublishDiagnosticsNotification.type, (params) => {
  const last = published.get(params.uri);
  // Without a version it is cleared.
  assert(!last || params.version === undefined || params.version > last.version);
  published.set(params.uri, params);
  waiting = waiting.filter((check) => !check());
});
const until = (condition) =>
  new Promise((resolve) => {
    const check = () => condition() && (resolve(), true);
    if (!check()) waiting.push(check);
  });
connection.onNotification(LogMessageNotification.type, () => {});
connection.onNotification(ShowMessageNotification.type, () => {});
const shown = [];
connection.onRequest(ShowDocumentRequest.type, ({ uri }) => {
  shown.push(uri);
  return { success: true };
});
connection.listen();

let document;
const identifier = () => ({ uri: document.uri, version: document.version });
async function open(uri, text) {
  document = TextDocument.create(uri, "wgsl", 1, text);
  const item = { uri, languageId: "wgsl", version: 1, text };
  await connection.sendNotification(DidOpenTextDocumentNotification.type, { textDocument: item });
}
async function change(...contentChanges) {
  document = TextDocument.update(document, contentChanges, document.version + 1);
  await connection.sendNotification(DidChangeTextDocumentNotification.type, {
    textDocument: identifier(),
    contentChanges,
  });
}
async function replace(old, text) {
  const start = document.getText().indexOf(old);
  assert(start >= 0, old);
  const range = {
    start: document.positionAt(start),
    end: document.positionAt(start + old.length),
  };
  await change({ range, text });
}
async function diagnostics() {
  const { uri, version } = document;
  await until(() => published.get(uri)?.version === version);
  return published.get(uri).diagnostics;
}
async function close() {
  const { uri } = document;
  await connection.sendNotification(DidCloseTextDocumentNotification.type, {
    textDocument: { uri },
  });
  await until(() => published.get(uri)?.version === undefined);
  assert.deepEqual(published.get(uri).diagnostics, []);
  published.delete(uri);
}

const { capabilities } = await connection.sendRequest(InitializeRequest.type, {
  processId: process.pid,
  rootUri: null,
  workspaceFolders: null,
  capabilities: {
    general: { positionEncodings: ["utf-16"] },
    window: { showDocument: { support: true } },
  },
});
assert.equal(capabilities.positionEncoding, "utf-16");
await connection.sendNotification(InitializedNotification.type, {});

// Open, edit fast, break, mend, close.
const valid = `/* \u{1F600} */ @compute @workgroup_size(1)
fn main() { let x = 0u; }
`;
await open("file:///c%3A/a%20project/main.wgsl", valid);
assert.deepEqual(await diagnostics(), []);
for (let number = 0; number < 500; number++) {
  await replace(`let x = ${number}u`, `let x = ${number + 1}u`);
}
assert.deepEqual(await diagnostics(), []);
await replace("let x = 500u", "let x = /* \u{1F600} */ nothing");
const [error, ...others] = await diagnostics();
assert.deepEqual(others, []);
assert.equal(document.getText(error.range), "nothing");
await replace("nothing", "1u");
assert.deepEqual(await diagnostics(), []);
await connection.sendNotification(DidSaveTextDocumentNotification.type, {
  textDocument: identifier(),
});

// Hover, code lenses, and what they do.
const place = { textDocument: { uri: document.uri }, position: { line: 0, character: 0 } };
const hover = await connection.sendRequest(HoverRequest.type, place);
assert.match(hover.contents.value, /MSL: not compiled yet/);
const lenses = await connection.sendRequest(CodeLensRequest.type, {
  textDocument: { uri: document.uri },
});
for (const { command } of lenses) {
  const done = await connection.sendRequest(ExecuteCommandRequest.type, command);
  const code = readFileSync(fileURLToPath(done.uri));
  assert.equal(code.length, done.bytes);
  if (command.title.endsWith("MSL")) assert(shown.includes(done.uri));
}
assert.match((await connection.sendRequest(HoverRequest.type, place)).contents.value, /in memory/);

// A request that is cancelled at once has its answer or says that it was cancelled.
for (let number = 0; number < 50; number++) {
  const source = new CancellationTokenSource();
  const answer = connection.sendRequest(HoverRequest.type, place, source.token);
  source.cancel();
  await answer.catch((error) => assert.equal(error.code, -32800));
}
await close();

// Edits at random: the document of the server is that of the client, at every stop.
let seed = 7;
const random = (most) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return (seed >>> 8) % most;
};
// JSON has no way to send half of a character.
const boundary = (text, at) => at - /^[\udc00-\udfff]/.test(text.slice(at));
const pieces = ["fn ", "a", "(", ")", "{", "}", "\n", "\r\n", "\r", "\u{1F600}", "\u00e9", "", "//", ";"];
await open("untitled:random", valid.repeat(3));
for (let stop = 0; stop < 100; stop++) {
  for (let edit = 0; edit < 5; edit++) {
    const text = document.getText();
    const start = boundary(text, random(text.length + 1));
    const end = boundary(text, Math.min(text.length, start + random(12)));
    const range = { start: document.positionAt(start), end: document.positionAt(end) };
    const number = random(pieces.length);
    await change({ range, text: pieces[number].repeat(1 + random(3)) });
  }
  const told = await diagnostics();
  const edited = document;
  await open(`untitled:fresh-${stop}`, edited.getText());
  assert.deepEqual(told, await diagnostics(), JSON.stringify(edited.getText()));
  await close();
  document = edited;
}
await close();

const status = await connection.sendRequest(ExecuteCommandRequest.type, { command: "wgsl.status" });
assert.equal(status.requests, 0);
await connection.sendRequest(ShutdownRequest.type);
await connection.sendNotification(ExitNotification.type);
assert.equal(await ended, 0);
connection.dispose();
console.log("all is well");
