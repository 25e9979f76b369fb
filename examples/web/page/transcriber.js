// A recogniser that listens to one stream of sound and reports what it hears, and how fast.

import { Stopwatch } from "./stopwatch.js";

/**
 * accept() sound, finish() once. report(message) gets, in this order within a chunk:
 *   {type: "partial", text}                          whenever the text of the segment changed
 *   {type: "final", text, tokens, start, seconds}    at an end-point and at the end, if not empty
 *   {type: "statistics", ...}                        after every chunk, see Stopwatch.summary()
 * tokens are {index, frame}; start and seconds are seconds of the stream.
 */
export class Transcriber {
  constructor(recognizer, stream, splits, report) {
    this.recognizer = recognizer;
    this.stream = stream;
    this.splits = splits; // whether an end-point begins a new segment
    this.report = report;
    this.stopwatch = new Stopwatch(recognizer.chunkSeconds);
    this.text = "";
  }

  static async open(recognizer, splits, report) {
    return new Transcriber(recognizer, await recognizer.createStream(), splits, report);
  }

  /**
   * Takes mono samples and decodes what is ready.
   *
   * @param {number | null} arrived Date.now() of the last sample's arrival; null for a file
   */
  async accept(sampleRate, samples, arrived = null) {
    this.stream.acceptWaveform(sampleRate, samples);
    await this.#decode(arrived);
  }

  /** Ends the sound; the last text is final. */
  async finish() {
    this.stream.inputFinished();
    await this.#decode(null);
    this.#close();
  }

  async #decode(arrived) {
    const { recognizer, stream, stopwatch } = this;
    while (recognizer.isReady(stream)) {
      const start = performance.now();
      await recognizer.decodeStream(stream);
      stopwatch.addChunk(performance.now() - start);
      if (arrived !== null) stopwatch.addDelay(Date.now() - arrived);
      this.#tell();
      if (this.splits && recognizer.isEndpoint(stream)) {
        this.#close();
        await recognizer.reset(stream);
      }
      this.report({ type: "statistics", ...stopwatch.summary() });
    }
  }

  #tell() {
    const text = this.recognizer.getResult(this.stream);
    if (text === this.text) return;
    this.text = text;
    this.report({ type: "partial", text });
  }

  #close() {
    const { recognizer, stream } = this;
    if (stream.tokens.length) {
      this.report({
        type: "final",
        text: this.text,
        tokens: stream.tokens,
        start: stream.startFrame * recognizer.frameSeconds,
        seconds: stream.search.numFrames * recognizer.frameSeconds,
      });
    }
    this.text = "";
  }
}
