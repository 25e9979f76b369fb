// The recogniser, with the calls of streaming/recognizer.py and so of sherpa-onnx; decoding awaits.

import { DEFAULT_RULES, isEndpoint } from "./endpoint.js";
import { AudioError } from "./errors.js";
import { FeatureStream, numFrames, numSamples } from "./features.js";
import { Resampler } from "./resample.js";
import { greedySearch, initialSearch, silentTokens } from "./search.js";
import { piecesToText, UNKNOWN } from "./tokens.js";

/** One speaker's sound and all that is carried for it; made by Recognizer.createStream(). */
export class Stream {
  constructor(info, state, search) {
    this.info = info;
    this.features = new FeatureStream(info.features);
    this.state = state;
    this.search = search;
    this.tokens = [];
    this.startFrame = 0; // encoder frames before this segment
    this.segment = 0;
    this.finished = false;
    this.resampler = null;
    this.sampleRate = 0;
  }

  /** Takes mono samples in [-1, 1], at any one rate; only stores them. */
  acceptWaveform(sampleRate, samples) {
    if (!this.resampler) {
      this.resampler = new Resampler(sampleRate, this.info.features.sample_rate);
      this.sampleRate = sampleRate;
    }
    if (sampleRate !== this.sampleRate) {
      throw new AudioError(`the stream began at ${this.sampleRate} Hz and now gets ${sampleRate} Hz`);
    }
    if (!samples.every(Number.isFinite)) {
      throw new AudioError("a sample is not finite: repair or leave out the sound");
    }
    this.features.accept(this.resampler.accept(samples));
  }

  /** Ends the sound: appends as much silence as brings the last word out, up to whole chunks. */
  inputFinished() {
    if (this.finished) return;
    this.finished = true;
    if (this.resampler) this.features.accept(this.resampler.finish());
    const { info, features } = this;
    if (features.numSamples === 0) return;
    const frames = numFrames(info.features, features.numSamples) + info.tail_frames;
    const chunks = Math.ceil(frames / info.chunk_frames);
    const padded = numSamples(info.features, chunks * info.chunk_frames);
    features.accept(new Float32Array(Math.max(0, padded - features.numSamples)));
  }
}

/** Decodes streams with one set of graphs. */
export class Recognizer {
  constructor(session, symbols) {
    this.session = session;
    this.info = session.info;
    this.symbols = symbols;
    this.silent = silentTokens(this.info, symbols);
    this.frameSeconds = (this.info.subsampling * this.info.features.frame_shift_ms) / 1000;
  }

  /** Seconds of sound in a chunk. */
  get chunkSeconds() {
    return (this.info.chunk_frames * this.info.features.frame_shift_ms) / 1000;
  }

  async createStream() {
    const search = await initialSearch(this.session);
    return new Stream(this.info, this.session.initialState(), search);
  }

  /** True when a whole chunk of features waits to be decoded. */
  isReady(stream) {
    return stream.features.numReady >= this.info.chunk_frames;
  }

  /** Decodes one chunk. */
  async decodeStream(stream) {
    const chunk = stream.features.read(this.info.chunk_frames);
    const [encoded, state] = await this.session.encode(chunk, stream.state);
    const maxSymbols = this.info.max_symbols_per_frame;
    const [tokens, search] = await greedySearch(
      this.session,
      encoded,
      stream.search,
      maxSymbols,
      this.silent,
    );
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
    const { memory, predicted, numFrames: frames } = stream.search;
    stream.startFrame += frames;
    if (this.session.resetForgets) stream.state = this.session.initialState();
    if (stream.tokens.length && !this.session.resetForgets) {
      stream.search = { memory, predicted, numFrames: 0, numTrailingBlanks: 0 };
    } else {
      stream.search = await initialSearch(this.session);
    }
    if (stream.tokens.length) stream.segment += 1;
    stream.tokens = [];
  }
}
