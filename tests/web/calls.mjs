// Calls the page's modules: node calls.mjs < calls.json, where calls are {call, ...}; answers in JSON.

import { readFileSync } from "node:fs";
import { parseInfo, parseSums } from "../../examples/web/page/streaming/bundle.js";
import { DEFAULT_RULES, isEndpoint } from "../../examples/web/page/streaming/endpoint.js";
import { FeatureStream } from "../../examples/web/page/streaming/features.js";
import { Resampler } from "../../examples/web/page/streaming/resample.js";
import { GreedySearch } from "../../examples/web/page/streaming/search/greedy.js";
import { silentTokens } from "../../examples/web/page/streaming/search/token.js";
import { NemoSession, rowsAreAlone, Session } from "../../examples/web/page/streaming/session.js";
import { checkAgreement } from "../../examples/web/page/streaming/tensors.js";
import { parseTokens, piecesToText } from "../../examples/web/page/streaming/tokens.js";
import { parseWav } from "../../examples/web/page/streaming/audio.js";
import { percentile } from "../../examples/web/page/stopwatch.js";

const SESSIONS = { sherpa_lstm: Session, sherpa_nemo: NemoSession };

/** A session without graphs: logits = encoded + table[last label], in small whole numbers. */
class TableSession {
  constructor({ table, info, joinsRows }) {
    Object.assign(this, { table, info, joinsRows });
    this.numJoins = 0;
  }

  emptyMemory() {
    return [];
  }

  async predict(label, memory) {
    return [Float32Array.from(this.table[label]), [...memory, label]];
  }

  async join(frames, predicted) {
    this.numJoins += 1;
    return frames.map((value, i) => value + predicted[i % predicted.length]);
  }
}

const CALLS = {
  features({ settings, pieces, reads }) {
    const stream = new FeatureStream(settings);
    const values = [];
    for (const piece of pieces) {
      stream.accept(Float32Array.from(piece));
      for (let read; (read = stream.read(reads)); ) values.push(...read);
    }
    const open = stream.numReady + stream.numRead;
    stream.finish();
    values.push(...stream.read(stream.numReady));
    return { values, open, pending: stream.pending.length };
  },

  resample({ inputRate, pieces }) {
    const resampler = new Resampler(inputRate, 16000);
    const parts = pieces.map((piece) => resampler.accept(Float32Array.from(piece)));
    return [...parts, resampler.finish()].flatMap((part) => Array.from(part));
  },

  async search(given) {
    const session = new TableSession(given);
    const silent = silentTokens(given.info, given.symbols);
    const search = new GreedySearch(session, silent, given.maxSymbols);
    let state = await search.start();
    const tokens = [];
    for (const chunk of given.chunks) {
      const encoded = Float32Array.from(chunk.flat());
      const [found, next] = await search.advance(encoded, state);
      tokens.push(...found.map(({ index, frame }) => [index, frame]));
      state = next;
    }
    const { memory, numFrames, numTrailingBlanks } = state;
    return { tokens, memory, numFrames, numTrailingBlanks, numJoins: session.numJoins };
  },

  /** What the graphs are given, call by call; `outputs` are what they answer. */
  async session({ info, outputs, chunk, frames, label }) {
    const given = [];
    const run = async (graph, arrays) => {
      given.push([graph, arrays.map(({ type, data, dims }) => [type, Array.from(data, Number), dims])]);
      return outputs[graph].map(({ data, dims }) => ({ type: "float32", data, dims }));
    };
    const session = new SESSIONS[info.target](info, run);
    const [encoded, state] = await session.encode(Float32Array.from(chunk), session.initialState());
    const [predicted] = await session.predict(label, session.emptyMemory());
    await session.join(Float32Array.from(frames), Float32Array.from(predicted));
    return { given, encoded: Array.from(encoded), states: state.length };
  },

  /** Of a joiner that adds, and rounds to a scale of all its rows where `shared`. */
  rowsAreAlone({ info, shared }) {
    const run = async (graph, [frames, predicted]) => {
      const sums = frames.data.map((value, i) => value + predicted.data[i]);
      const scale = Math.max(...sums.map(Math.abs)) / 127;
      return [{ data: shared ? sums.map((sum) => Math.round(sum / scale) * scale) : sums }];
    };
    return rowsAreAlone(new SESSIONS[info.target](info, run));
  },

  endpoint: ({ trailing, utterance }) => isEndpoint(DEFAULT_RULES, trailing, utterance),
  text: ({ pieces }) => piecesToText(pieces),
  tokens: ({ text, vocabSize, blankId }) => parseTokens(text, vocabSize, blankId),
  sums: ({ text }) => Object.fromEntries(parseSums(text)),
  info: ({ text }) => (checkAgreement(parseInfo(text)), true),
  percentile: ({ values, share }) => percentile(values, share),

  wav({ base64 }) {
    const bytes = Uint8Array.from(Buffer.from(base64, "base64"));
    const { samples, sampleRate } = parseWav(bytes.buffer);
    return { samples: Array.from(samples), sampleRate };
  },
};

const answers = [];
for (const given of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push({ value: await CALLS[given.call](given) });
  } catch (error) {
    answers.push({ error: error.message, kind: error.name });
  }
}
console.log(JSON.stringify(answers));
