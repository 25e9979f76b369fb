// Recognises sound in onnxruntime-web under node: node runtime.mjs < task.json, an answer in JSON.
//
// task: {web, bundle, precision, signals, resets}; a signal is (numSamples,) at 16 kHz. With resets
// an end-point begins a new segment, and each segment is in the answer.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const task = JSON.parse(readFileSync(0, "utf8"));
const load = (name) => import(pathToFileURL(join(task.web, name)).href);
const ort = await load("node_modules/onnxruntime-web/dist/ort.node.min.mjs");
const { readBundle } = await load("page/streaming/bundle.js");
const { openSession } = await load("page/streaming/session.js");
const { Recognizer } = await load("page/streaming/recognizer.js");
const { Transcriber } = await load("page/transcriber.js");

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
globalThis.fetch = async (url) => {
  const bytes = await readFile(new URL(url.pathname, "file:")).catch(() => null);
  return bytes ? new Response(bytes) : new Response("", { status: 404 });
};

async function recognise(recognizer, samples) {
  const segments = [];
  const transcriber = await Transcriber.open(recognizer, task.resets, (said) => {
    if (said.type === "final") segments.push(said);
  });
  for (let start = 0; start < samples.length; start += 4000) {
    await transcriber.accept(16000, Float32Array.from(samples.slice(start, start + 4000)));
  }
  await transcriber.finish();
  return segments.map(({ text, tokens, start, seconds }) => ({
    text,
    start,
    seconds,
    tokens: tokens.map(({ index, frame }) => [index, frame]),
  }));
}

try {
  const bundle = await readBundle(pathToFileURL(task.bundle).href, task.precision);
  const recognizer = new Recognizer(await openSession(ort, bundle), bundle.symbols);
  const found = [];
  for (const samples of task.signals) found.push(await recognise(recognizer, samples));
  console.log(JSON.stringify({ found }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, kind: error.name }));
}
