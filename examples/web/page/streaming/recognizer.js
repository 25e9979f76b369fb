// The recogniser, with the calls of streaming/recognizer.py and so of sherpa-onnx; decoding awaits.

import { DEFAULT_RULES, isEndpoint } from "./endpoint.js";
import { GreedySearch } from "./search/greedy.js";
import { silentTokens } from "./search/token.js";
import { Stream } from "./stream.js";
import { piecesToText, UNKNOWN } from "./tokens.js";

/** Decodes streams with one set of graphs. */
export class Recognizer {
  constructor(session, symbols) {
    this.session = session;
    this.info = session.info;
    this.symbols = symbols;
    const silent = silentTokens(this.info, symbols);
    this.search = new GreedySearch(session, silent, this.info.max_symbols_per_frame);
    this.frameSeconds = (this.info.subsampling * this.info.features.frame_shift_ms) / 1000;
  }

  /** Seconds of sound in a chunk. */
  get chunkSeconds() {
    return (this.info.chunk_frames * this.info.features.frame_shift_ms) / 1000;
  }

  async createStream() {
    return new Stream(this.info, this.session.initialState(), await this.search.start());
  }

  /** True when a whole chunk of features waits to be decoded. */
  isReady(stream) {
    return stream.features.numReady >= this.info.chunk_frames;
  }

  /** Decodes one chunk. */
  async decodeStream(stream) {
    const chunk = stream.features.read(this.info.chunk_frames);
    const [encoded, state] = await this.session.encode(chunk, stream.state);
    const [tokens, search] = await this.search.advance(encoded, stream.search);
    stream.state = state;
    stream.search = search;
    stream.tokens.push(...tokens.filter(({ index }) => this.symbols[index] !== UNKNOWN));
  }

  /** The text since the stream began or was last reset. */
  getResult(stream) {
    return piecesToText(stream.tokens.map(({ index }) => this.symbols[index]));
  }

  /** True when a rule says that the utterance is over; then take the result and reset(). */
  isEndpoint(stream) {
    const { numFrames: frames, numTrailingBlanks: blanks } = stream.search;
    return isEndpoint(DEFAULT_RULES, blanks * this.frameSeconds, frames * this.frameSeconds);
  }

  /** Begins the next utterance, as sherpa-onnx does: the text starts afresh. */
  async reset(stream) {
    stream.startFrame += stream.search.numFrames;
    if (this.session.resetForgets) stream.state = this.session.initialState();
    const goesOn = stream.tokens.length > 0 && !this.session.resetForgets;
    stream.search = goesOn ? this.search.resume(stream.search) : await this.search.start();
    if (stream.tokens.length) stream.segment += 1;
    stream.tokens = [];
  }
}
