// Any sample rate to any other, in pieces: streaming/resample.py, which has the formulas.

import { AudioError } from "./errors.js";

const NUM_ZEROS = 16; // zero crossings of the sinc on each side
const ROLLOFF = 0.945; // to 16 kHz: flat to 7 kHz, -44 dB at 8.5 kHz
const MIN_RATE = 1000;
const MAX_RATE = 768000;

/** accept() pieces (numSamples,), finish() once; both return what is ready. */
export class Resampler {
  constructor(inputRate, outputRate) {
    for (const rate of [inputRate, outputRate]) {
      if (!Number.isInteger(rate) || rate < MIN_RATE || rate > MAX_RATE) {
        throw new AudioError(
          `sample rate ${rate} is not an integer in ${MIN_RATE}..${MAX_RATE}: ` +
            "give the rate of the samples in Hz",
        );
      }
    }
    const divisor = greatestDivisor(inputRate, outputRate);
    this.up = outputRate / divisor;
    this.down = inputRate / divisor;
    this.numAccepted = 0;
    this.numReturned = 0;
    this.finished = false;
    [this.taps, this.half] = buildTaps(this.up, this.down);
    // The samples from input index `start` on; half a filter of zeros stands before the first.
    this.start = -this.half;
    this.pending = new Float32Array(this.half);
  }

  accept(samples) {
    if (this.finished) throw new Error("accept() after finish()");
    this.numAccepted += samples.length;
    if (this.up === this.down) return samples;
    this.#append(samples);
    // Output m needs inputs up to floor(m * down / up) + half.
    const last = this.numAccepted - 1 - this.half;
    const ready = Math.floor((last * this.up + this.up - 1) / this.down) + 1;
    return this.#compute(last >= 0 ? ready : 0);
  }

  finish() {
    if (this.finished || this.up === this.down) {
      this.finished = true;
      return new Float32Array(0);
    }
    this.finished = true;
    this.#append(new Float32Array(this.half));
    return this.#compute(Math.ceil((this.numAccepted * this.up) / this.down));
  }

  #append(samples) {
    const pending = new Float32Array(this.pending.length + samples.length);
    pending.set(this.pending);
    pending.set(samples, this.pending.length);
    this.pending = pending;
  }

  /** Outputs numReturned..stop-1; forgets the inputs that no later output needs. */
  #compute(stop) {
    const { down, half, numReturned, pending, start, taps, up } = this;
    const width = 2 * half;
    const samples = new Float32Array(Math.max(0, stop - numReturned));
    for (let m = 0; m < samples.length; m++) {
      const position = (numReturned + m) * down;
      const first = Math.floor(position / up) - half + 1 - start;
      const row = (position % up) * width;
      let sum = 0;
      for (let k = 0; k < width; k++) sum += pending[first + k] * taps[row + k];
      samples[m] = sum;
    }
    this.numReturned += samples.length;
    const next = Math.floor((this.numReturned * down) / up) - half + 1 - start;
    const drop = Math.max(0, Math.min(next, pending.length));
    this.pending = pending.slice(drop);
    this.start += drop;
    return samples;
  }
}

/** A whole signal (numSamples,) at another rate. */
export function resample(samples, inputRate, outputRate) {
  const resampler = new Resampler(inputRate, outputRate);
  const parts = [resampler.accept(samples), resampler.finish()];
  const all = new Float32Array(parts[0].length + parts[1].length);
  all.set(parts[0]);
  all.set(parts[1], parts[0].length);
  return all;
}

/** [h as (up, 2K) row by row, K]: row p, column k weighs input floor(t) - K + 1 + k at phase p/up. */
function buildTaps(up, down) {
  const cutoff = ROLLOFF * Math.min(1, up / down);
  const half = Math.ceil(NUM_ZEROS / cutoff);
  const taps = new Float32Array(up * 2 * half);
  for (let phase = 0; phase < up; phase++) {
    for (let k = 0; k < 2 * half; k++) {
      const offset = phase / up - (k + 1 - half);
      const window = Math.cos((Math.PI * Math.max(-1, Math.min(1, offset / half))) / 2) ** 2;
      taps[phase * 2 * half + k] = cutoff * sinc(cutoff * offset) * window;
    }
  }
  return [taps, half];
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function greatestDivisor(a, b) {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
