// The recogniser in a thread of its own: page.js sends sound, this answers with text.
//
// In:   {type: "open", address, precision, threads}
//       {type: "listen", port, sampleRate, splits}    port: blocks of capture.js, then {end: true}
//       {type: "file", samples, sampleRate, splits}
//       {type: "stop"}                                ends a file early
// Out:  {type: "loading", name, bytes}, {type: "ready", ...}, {type: "level", level},
//       the messages of transcriber.js, {type: "done"}, {type: "error", message, known}

import * as ort from "./ort/1.30.0/ort.wasm.min.mjs";
import { readBundle } from "./streaming/bundle.js";
import { InputError } from "./streaming/errors.js";
import { Recognizer } from "./streaming/recognizer.js";
import { openSession } from "./streaming/session.js";
import { Transcriber } from "./transcriber.js";

const BLOCK_SECONDS = 1; // of a file, decoded before the next message is looked at
let recognizer = null;
let stopped = false;

const CALLS = { open, listen, file: transcribeFile, stop };

self.onmessage = ({ data }) => attempt(() => CALLS[data.type](data));

/** A wrong input becomes a message for the page; so does a bug of ours, marked as one. */
async function attempt(call) {
  try {
    await call();
  } catch (error) {
    const known = error instanceof InputError;
    self.postMessage({ type: "error", message: error?.message ?? String(error), known });
  }
}

async function open({ address, precision, threads }) {
  ort.env.wasm.wasmPaths = new URL("./ort/1.30.0/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
  const bundle = await readBundle(address, precision, (name, bytes) => {
    self.postMessage({ type: "loading", name, bytes });
  });
  self.postMessage({ type: "loading", name: "onnxruntime-web", bytes: bundle.numBytes });
  const session = await openSession(ort, bundle);
  recognizer = new Recognizer(session, bundle.symbols);
  self.postMessage({
    type: "ready",
    name: bundle.info.name,
    precision: bundle.precision,
    threads: ort.env.wasm.numThreads,
    numBytes: bundle.numBytes,
    chunkSeconds: recognizer.chunkSeconds,
    sampleRate: bundle.info.features.sample_rate,
  });
}

async function listen({ port, sampleRate, splits }) {
  const transcriber = await Transcriber.open(recognizer, splits, (said) => self.postMessage(said));
  let last = Promise.resolve(); // blocks wait for each other in their order
  port.onmessage = ({ data }) => {
    last = last.then(() => attempt(() => hear(transcriber, port, sampleRate, data)));
  };
}

async function hear(transcriber, port, sampleRate, { samples, arrived, end }) {
  if (end) {
    port.close();
    await transcriber.finish();
    self.postMessage({ type: "done" });
    return;
  }
  self.postMessage({ type: "level", level: rootMeanSquare(samples) });
  await transcriber.accept(sampleRate, samples, arrived);
}

async function transcribeFile({ samples, sampleRate, splits }) {
  stopped = false;
  const transcriber = await Transcriber.open(recognizer, splits, (said) => self.postMessage(said));
  const size = Math.round(BLOCK_SECONDS * sampleRate);
  for (let start = 0; start < samples.length && !stopped; start += size) {
    const block = samples.subarray(start, start + size);
    self.postMessage({ type: "level", level: rootMeanSquare(block) });
    await transcriber.accept(sampleRate, block);
    self.postMessage({ type: "progress", share: Math.min(1, (start + size) / samples.length) });
    await new Promise((resolve) => setTimeout(resolve)); // lets "stop" through
  }
  await transcriber.finish();
  self.postMessage({ type: "done" });
}

function stop() {
  stopped = true;
}

function rootMeanSquare(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}
