// Greedy transducer search of one stream, with label looping: streaming/search/greedy.py.
//
// Letters: T' encoder frames, J joiner width, V tokens.
// Between two labels the predictor does not change, so the joiner is asked for all frames that are
// left at once, and again only after a label: one call for a chunk of silence instead of T'. Not
// where a row's logits depend on the other rows (session.joinsRows): there it is one frame a call.

/**
 * What the search carries from chunk to chunk.
 * @typedef {{memory: any, predicted: Float32Array, numFrames: number, numTrailingBlanks: number}} GreedyState
 */

export class GreedySearch {
  /**
   * @param {Set<number>} silent the ids that emit nothing, see silentTokens()
   * @param {number} maxSymbols labels that one frame may emit
   */
  constructor(session, silent, maxSymbols) {
    this.session = session;
    this.silent = silent;
    this.maxSymbols = maxSymbols;
  }

  /** The state before the first frame: the predictor has heard blank. */
  async start() {
    const { info } = this.session;
    const [predicted, memory] = await this.session.predict(info.blank_id, this.session.emptyMemory());
    return { memory, predicted, numFrames: 0, numTrailingBlanks: 0 };
  }

  /** The state of the next segment: it counts from zero, and the last labels stay known. */
  resume(state) {
    return { ...state, numFrames: 0, numTrailingBlanks: 0 };
  }

  /** Searches encoded (T', J); returns [new tokens as {index, frame}, the next state]. */
  async advance(encoded, state) {
    let { memory, predicted } = state;
    const width = predicted.length;
    const numFrames = encoded.length / width;
    const tokens = [];
    let frame = 0;
    let numSymbols = 0; // that this frame has emitted
    while (frame < numFrames) {
      const found = await this.#nextLabel(encoded.subarray(frame * width), predicted);
      if (!found) break;
      if (found.offset > 0) numSymbols = 0;
      frame += found.offset;
      tokens.push({ index: found.label, frame: state.numFrames + frame });
      [predicted, memory] = await this.session.predict(found.label, memory);
      numSymbols += 1;
      if (numSymbols === this.maxSymbols) {
        frame += 1;
        numSymbols = 0;
      }
    }
    return [tokens, { memory, predicted, ...count(state, tokens, numFrames) }];
  }

  /** The first of the frames (rows, J) that emits a label, as {offset, label}; null if none does. */
  async #nextLabel(frames, predicted) {
    const width = predicted.length;
    const rows = this.session.joinsRows ? frames.length / width : 1;
    for (let offset = 0; offset < frames.length / width; offset += rows) {
      const some = frames.subarray(offset * width, (offset + rows) * width);
      const labels = argmaxRows(await this.session.join(some, predicted), rows);
      const row = labels.findIndex((label) => !this.silent.has(label));
      if (row >= 0) return { offset: offset + row, label: labels[row] };
    }
    return null;
  }
}

/** Frames searched, and how many of them since a token, after a chunk of numFrames. */
function count(state, tokens, numFrames) {
  const total = state.numFrames + numFrames;
  const trailing = tokens.length ? total - 1 - tokens.at(-1).frame : state.numTrailingBlanks + numFrames;
  return { numFrames: total, numTrailingBlanks: trailing };
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
