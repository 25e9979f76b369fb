// One speaker's sound and all that is carried for it from chunk to chunk: streaming/stream.py.

import { checkSamples } from "./audio.js";
import { AudioError } from "./errors.js";
import { FeatureStream, numFrames, numSamples } from "./features.js";
import { Resampler } from "./resample.js";

/** Made by Recognizer.createStream(). */
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
    checkSamples(samples);
    if (!this.resampler) {
      this.resampler = new Resampler(sampleRate, this.info.features.sample_rate);
      this.sampleRate = sampleRate;
    }
    if (sampleRate !== this.sampleRate) {
      throw new AudioError(
        `the stream began at ${this.sampleRate} Hz and now gets ${sampleRate} Hz: start again`,
      );
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
