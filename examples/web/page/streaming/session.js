// The three graphs of a bundle, one call each, for one stream: streaming/session.py.
//
// Letters: T' encoder frames, F mel bins, J joiner width, V tokens, L layers and P width of a
// predictor's LSTM. An array is {type, data, dims}, as onnxruntime-web's tensors; a stream is the
// only one in its batch. State goes in and comes out; zero is the empty state of an encoder.

import { BundleError } from "./errors.js";
import { GRAPHS } from "./bundle.js";
import { checkAgreement, checkNames } from "./tensors.js";

const MAX_ANSWERS_BYTES = 1 << 20; // of a stateless predictor's answers that are kept
const ROWS_ALONE_TOLERANCE = 1e-3; // of the largest logit; one int8 scale for both rows gives 0.1 to 1

/** The calls of a bundle of target sherpa_lstm; run(graph, arrays) -> arrays, in the graph's order. */
export class Session {
  resetForgets = false; // whether sherpa-onnx resets encoder and predictor with the text

  constructor(info, run) {
    this.info = info;
    this.run = run;
    this.joinsRows = false; // see rowsAreAlone(), which openSession() asks
    this.answers = new Map(); // of the predictor, by the labels that it was given
  }

  initialState() {
    return this.info.state_sizes.map((size) => floats(new Float32Array(size), [1, 1, size]));
  }

  /** Features (chunk_frames, F) -> [encoded (T', J), the next state]. */
  async encode(chunk, state) {
    const { chunk_frames: frames, features } = this.info;
    const x = floats(chunk, [1, frames, features.num_mel_bins]);
    const [encoded, ...after] = await this.run("encoder", [x, ...state]);
    return [encoded.data, after];
  }

  /** What the predictor remembers before it heard anything: labels of -1. */
  emptyMemory() {
    return new Array(this.info.context_size).fill(-1);
  }

  /** A new label -> [predicted (J,), the next memory]; the answer to the last labels is kept. */
  async predict(label, memory) {
    const labels = [...memory.slice(1), label];
    const key = labels.join();
    if (!this.answers.has(key)) {
      const y = { type: "int64", data: BigInt64Array.from(labels, BigInt), dims: [1, labels.length] };
      const [predicted] = await this.run("decoder", [y]);
      if ((this.answers.size + 1) * predicted.data.byteLength > MAX_ANSWERS_BYTES) this.answers.clear();
      this.answers.set(key, predicted.data);
    }
    return [this.answers.get(key), labels];
  }

  /** Frames (rows, J), all with the same prediction (J,) -> logits (rows, V). */
  async join(frames, predicted) {
    const width = predicted.length;
    const rows = frames.length / width;
    const tiled = new Float32Array(frames.length);
    for (let row = 0; row < rows; row++) tiled.set(predicted, row * width);
    const dims = this.joinerDims(rows, width);
    const [logits] = await this.run("joiner", [floats(frames, dims), floats(tiled, dims)]);
    return logits.data;
  }

  joinerDims(rows, width) {
    return [rows, width];
  }
}

/** The same calls for target sherpa_nemo, whose predictor has a state: h and c (L, 1, P). */
export class NemoSession extends Session {
  resetForgets = true;

  initialState() {
    const sizes = this.info.state_sizes;
    const caches = sizes.map((size) => floats(new Float32Array(size), [1, 1, 1, size]));
    return [...caches, { type: "int64", data: new BigInt64Array(1), dims: [1] }];
  }

  async encode(chunk, state) {
    const { chunk_frames: frames, features } = this.info;
    const bins = features.num_mel_bins;
    const audio = floats(transpose(chunk, frames, bins), [1, bins, frames]);
    const length = { type: "int64", data: BigInt64Array.of(BigInt(frames)), dims: [1] };
    const [encoded, , ...after] = await this.run("encoder", [audio, length, ...state]);
    const [, width, encodedFrames] = encoded.dims;
    return [transpose(encoded.data, width, encodedFrames), after];
  }

  emptyMemory() {
    const [layers, , width] = this.info.tensors.decoder.inputs[2].shape;
    const zeros = () => floats(new Float32Array(layers * width), [layers, 1, width]);
    return [zeros(), zeros()];
  }

  async predict(label, memory) {
    const targets = { type: "int32", data: Int32Array.of(label), dims: [1, 1] };
    const length = { type: "int32", data: Int32Array.of(1), dims: [1] };
    const [predicted, , h, c] = await this.run("decoder", [targets, length, ...memory]);
    return [predicted.data, [h, c]];
  }

  joinerDims(rows, width) {
    return [rows, width, 1];
  }
}

const SESSIONS = { sherpa_lstm: Session, sherpa_nemo: NemoSession };

/** Encoder, predictor and joiner of what readBundle() returned, in onnxruntime-web `ort`. */
export async function openSession(ort, { info, graphs }) {
  checkAgreement(info);
  const loaded = {};
  for (const graph of GRAPHS) {
    loaded[graph] = await loadGraph(ort, graphs[graph]);
    checkNames(loaded[graph], info.tensors[graph], graphs[graph].name);
  }
  const run = (graph, arrays) => runGraph(ort, loaded[graph], arrays);
  const session = new SESSIONS[info.target](info, run);
  session.joinsRows = await rowsAreAlone(session);
  return session;
}

async function loadGraph(ort, { name, bytes, external }) {
  try {
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3, externalData: external };
    return await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    const reason = String(error?.message ?? error).split("\n")[0].slice(0, 160);
    throw new BundleError(`${name}: onnxruntime-web cannot load it (${reason}): export it again`);
  }
}

async function runGraph(ort, graph, arrays) {
  const tensors = arrays.map(({ type, data, dims }) => new ort.Tensor(type, data, dims));
  const feeds = Object.fromEntries(graph.inputNames.map((name, i) => [name, tensors[i]]));
  const outputs = await graph.run(feeds);
  return graph.outputNames.map((name) => outputs[name]);
}

/**
 * Whether a row's logits stay the same when other rows are joined in the same call. A joiner in
 * dynamic int8 has one scale for all rows: a faint row is tried alone and beside a loud one.
 */
export async function rowsAreAlone(session) {
  const width = session.info.tensors.joiner.inputs[0].shape[1];
  const faint = Float32Array.from({ length: width }, (_, i) => Math.sin(7 * i + 1) / 8);
  const both = Float32Array.from({ length: 2 * width }, (_, i) => faint[i] ?? 800 * faint[i - width]);
  const alone = await session.join(faint, faint);
  const beside = await session.join(both, faint);
  const largest = Math.max(...alone.map(Math.abs));
  return alone.every((logit, i) => Math.abs(logit - beside[i]) <= ROWS_ALONE_TOLERANCE * largest);
}

function floats(data, dims) {
  return { type: "float32", data, dims };
}

/** (rows, columns) -> (columns, rows). */
function transpose(data, rows, columns) {
  const turned = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      turned[column * rows + row] = data[row * columns + column];
    }
  }
  return turned;
}
