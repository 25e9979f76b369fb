// The bundle over the network: bundle.json, tokens.txt and three graphs, each held to its SHA-256
// (streaming/bundle.py). Only the files of the precision that runs are fetched.

import { BundleError, InputError } from "./errors.js";
import { checkSettings } from "./features.js";
import { parseTokens } from "./tokens.js";

const SCHEMA = 1;
const SUMS_FILE = "SHA256SUMS";
const INFO_FILE = "bundle.json";
const TOKENS_FILE = "tokens.txt";
const TARGETS = ["sherpa_lstm", "sherpa_nemo"];
const MAX_STATE_SIZE = 1 << 26;
export const GRAPHS = ["encoder", "decoder", "joiner"];

/** Smallest and largest value that makes sense, as in streaming/bundle.py. */
const LIMITS = {
  chunk_frames: [4, 4096],
  subsampling: [1, 16],
  vocab_size: [2, 1 << 17],
  blank_id: [0, 1 << 17],
  context_size: [1, 16],
  max_symbols_per_frame: [1, 100],
  tail_frames: [0, 4096],
};

/**
 * Reads and checks a bundle; raises BundleError that names the file and the fix.
 *
 * @param {string} address of the folder
 * @param {string} precision a key of info.files; empty takes the bundle's default
 * @param {(name: string, bytes: number) => void} onFile called before a file is fetched, with the
 *     bytes that came before it
 * @returns {Promise<{info, precision, symbols: string[], numBytes: number,
 *     graphs: Record<string, {name: string, bytes: Uint8Array, external: object[]}>}>}
 */
export async function readBundle(address, precision = "", onFile = () => {}) {
  const folder = new Folder(address, onFile);
  await folder.readSums();
  const info = parseInfo(await folder.readText(INFO_FILE));
  const symbols = parseTokens(await folder.readText(TOKENS_FILE), info.vocab_size, info.blank_id);
  const chosen = precision || info.default_precision;
  const files = info.files[chosen];
  if (!files) {
    const have = Object.keys(info.files).join(", ");
    throw new BundleError(`the bundle has no precision ${chosen}: choose one of ${have}`);
  }
  const graphs = {};
  for (const graph of GRAPHS) graphs[graph] = await folder.readGraph(files[graph]);
  return { info, precision: chosen, symbols, graphs, numBytes: folder.numBytes };
}

/** Files under one address, each checked against SHA256SUMS. */
class Folder {
  constructor(address, onFile) {
    this.address = new URL(address.replace(/\/?$/, "/"), globalThis.location?.href);
    this.onFile = onFile;
    this.sums = new Map();
    this.numBytes = 0;
  }

  async readSums() {
    if (!globalThis.crypto?.subtle) {
      throw new InputError(
        "the browser checks no hashes on this address: open the page by https or on localhost",
      );
    }
    const text = new TextDecoder().decode(await this.#fetch(SUMS_FILE));
    this.sums = parseSums(text);
  }

  async readText(name) {
    return new TextDecoder().decode(await this.#read(name));
  }

  /** A graph, and the weights that it keeps outside where the bundle has such a file. */
  async readGraph(name) {
    const bytes = await this.#read(name);
    const data = `${name}.data`;
    const external = this.sums.has(data) ? [{ path: data, data: await this.#read(data) }] : [];
    return { name, bytes, external };
  }

  async #read(name) {
    const wanted = this.sums.get(name);
    if (!wanted) throw new BundleError(`${SUMS_FILE}: no hash for ${name}: export the bundle again`);
    // The hash is in the address, so that service.js keeps a file for ever and never an old one.
    const bytes = await this.#fetch(name, `?sha256=${wanted}`);
    const digest = await crypto.subtle.digest("SHA-256", bytes);
    if (toHex(digest) !== wanted) {
      throw new BundleError(`${name}: does not match ${SUMS_FILE}: copy the bundle again`);
    }
    return bytes;
  }

  async #fetch(name, query = "") {
    this.onFile(name, this.numBytes);
    const url = new URL(name + query, this.address);
    let response;
    try {
      response = await fetch(url);
      if (response.ok) {
        const bytes = new Uint8Array(await response.arrayBuffer());
        this.numBytes += bytes.length;
        return bytes;
      }
    } catch {
      throw new BundleError(
        `${url.origin}${url.pathname} cannot be fetched: check the address, the connection, and ` +
          "that another origin allows this page (CORS)",
      );
    }
    throw new BundleError(
      `${url.pathname}: ${response.status === 404 ? "missing" : `status ${response.status}`}: ` +
        "give the folder of a bundle made by compress export",
    );
  }
}

/** Map of file name -> SHA-256 in hex, from lines `HASH  NAME`. */
export function parseSums(text) {
  const sums = new Map();
  text.trimEnd().split("\n").forEach((line, index) => {
    const found = /^([0-9a-f]{64}) {2}(.+)$/.exec(line);
    if (!found) {
      throw new BundleError(`${SUMS_FILE}:${index + 1}: not 'HASH  NAME': copy the bundle again`);
    }
    checkName(found[2]);
    sums.set(found[2], found[1]);
  });
  return sums;
}

/** The values of bundle.json, checked; raises BundleError. */
export function parseInfo(text) {
  let info;
  try {
    info = JSON.parse(text);
  } catch {
    throw new BundleError(`${INFO_FILE}: not valid JSON: copy or export the bundle again`);
  }
  check(info?.schema === SCHEMA, `schema ${info?.schema}, this page reads ${SCHEMA}`);
  for (const [key, [low, high]] of Object.entries(LIMITS)) {
    const right = Number.isInteger(info[key]) && low <= info[key] && info[key] <= high;
    check(right, `${key} must be an integer in ${low}..${high}`);
  }
  check(TARGETS.includes(info.target), `target must be one of ${TARGETS.join(", ")}`);
  const blank = info.target === "sherpa_nemo" ? info.vocab_size - 1 : 0;
  check(info.blank_id === blank, `blank_id must be ${blank}, where sherpa-onnx has it`);
  check(info.chunk_frames % info.subsampling === 0, "chunk is no multiple of subsampling");
  checkStates(info.state_sizes);
  checkFiles(info);
  checkTensors(info.tensors);
  checkFeatures(info.features);
  return info;
}

function check(right, what) {
  if (!right) throw new BundleError(`${INFO_FILE}: ${what}: export the bundle again`);
}

function checkName(name) {
  const plain = typeof name === "string" && /^[^/\\\p{Cc}]+$/u.test(name) && !/^\.{1,2}$/.test(name);
  if (!plain) throw new BundleError(`path ${name} leaves the bundle: use a bundle you trust`);
}

function checkStates(sizes) {
  const right = (size) => Number.isInteger(size) && size >= 1 && size <= MAX_STATE_SIZE;
  const both = Array.isArray(sizes) && sizes.length === 2 && sizes.every(right);
  check(both, "state_sizes must be two positive integers");
}

function checkFiles({ files, default_precision: precision }) {
  const named = (graphs) => GRAPHS.every((graph) => typeof graphs?.[graph] === "string");
  check(Object.values(files ?? {}).every(named), `files must name ${GRAPHS.join(", ")}`);
  check(files && Object.hasOwn(files, precision), "default_precision is not among files");
  Object.values(files).flatMap(Object.values).forEach(checkName);
}

function checkTensors(tensors) {
  const listed = (graph) => ["inputs", "outputs"].every((side) => isTensors(tensors?.[graph]?.[side]));
  check(GRAPHS.every(listed), "tensors must list each graph's inputs and outputs");
}

function isTensors(tensors) {
  return (
    Array.isArray(tensors) &&
    tensors.every(
      (tensor) =>
        typeof tensor?.name === "string" &&
        typeof tensor.dtype === "string" &&
        Array.isArray(tensor.shape) &&
        tensor.shape.every((size) => size === "N" || (Number.isInteger(size) && size > 0)),
    )
  );
}

function checkFeatures(settings) {
  try {
    checkSettings(settings);
  } catch (error) {
    throw new BundleError(`${INFO_FILE}: ${error.message}: export the bundle again`);
  }
}

function toHex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
