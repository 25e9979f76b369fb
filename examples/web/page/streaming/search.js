// Greedy transducer search of one stream, with label looping: the tokens of streaming/search.py.
//
// Letters: T' encoder frames, J joiner width, V tokens.
// Between two labels the predictor does not change, so the joiner is asked for all frames that are
// left at once, and again only after a label: one call for a chunk of silence instead of T'.
// Not where the joiner's int8 takes one scale from all its rows (session.joinsRows): there a frame's
// logits would depend on the others, so each is asked for alone, as in streaming/search.py.

import { UNKNOWN } from "./tokens.js";

/**
 * What the search carries from chunk to chunk.
 * @typedef {{memory: any, predicted: Float32Array, numFrames: number, numTrailingBlanks: number}} GreedyState
 */

/** The state before the first frame: the predictor has heard blank. */
export async function initialSearch(session) {
  const [predicted, memory] = await session.predict(session.info.blank_id, session.emptyMemory());
  return { memory, predicted, numFrames: 0, numTrailingBlanks: 0 };
}

/** The ids that emit nothing: blank, and <unk> where sherpa-onnx takes it for blank too. */
export function silentTokens(info, symbols) {
  const silent = new Set([info.blank_id]);
  if (info.target === "sherpa_lstm" && symbols.includes(UNKNOWN)) silent.add(symbols.indexOf(UNKNOWN));
  return silent;
}

/**
 * Searches encoded (T', J); returns [new tokens as {index, frame}, the next state].
 *
 * @param {Set<number>} silent the ids that emit nothing, see silentTokens()
 * @param {number} maxSymbols labels that one frame may emit
 */
export async function greedySearch(session, encoded, state, maxSymbols, silent) {
  let { memory, predicted } = state;
  const width = predicted.length;
  const numFrames = encoded.length / width;
  const tokens = [];
  let frame = 0;
  let numSymbols = 0; // that this frame has emitted
  while (frame < numFrames) {
    const found = await nextLabel(session, encoded.subarray(frame * width), predicted, silent);
    if (!found) break;
    if (found.offset > 0) numSymbols = 0;
    frame += found.offset;
    tokens.push({ index: found.label, frame: state.numFrames + frame });
    [predicted, memory] = await session.predict(found.label, memory);
    numSymbols += 1;
    if (numSymbols === maxSymbols) {
      frame += 1;
      numSymbols = 0;
    }
  }
  const after = state.numFrames + numFrames;
  const trailing = tokens.length
    ? after - 1 - tokens.at(-1).frame
    : state.numTrailingBlanks + numFrames;
  return [tokens, { memory, predicted, numFrames: after, numTrailingBlanks: trailing }];
}

/** The first of the frames (rows, J) that emits a label, as {offset, label}; null when none does. */
async function nextLabel(session, frames, predicted, silent) {
  const width = predicted.length;
  const rows = session.joinsRows ? frames.length / width : 1;
  for (let offset = 0; offset < frames.length / width; offset += rows) {
    const some = frames.subarray(offset * width, (offset + rows) * width);
    const labels = argmaxRows(await session.join(some, predicted), rows);
    const row = labels.findIndex((label) => !silent.has(label));
    if (row >= 0) return { offset: offset + row, label: labels[row] };
  }
  return null;
}

/** The index of the largest value of each row, the first of equals, as numpy's argmax. */
function argmaxRows(logits, rows) {
  const width = logits.length / rows;
  return Array.from({ length: rows }, (_, row) => {
    let best = row * width;
    for (let i = best + 1; i < (row + 1) * width; i++) if (logits[i] > logits[best]) best = i;
    return best - row * width;
  });
}
