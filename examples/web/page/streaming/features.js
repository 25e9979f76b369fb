// Log-mel features as kaldi-native-fbank computes them: streaming/features.py.
//
// Letters: T feature frames, F mel bins. Samples lie in [-1, 1]; edges are mirrored (snip_edges
// false), nothing is dithered. Arithmetic is float32 in kaldi-native-fbank's order.

import { InputError } from "./errors.js";
import { PowerSpectrum } from "./fft.js";
import { buildFilters } from "./mel.js";

const f32 = Math.fround;
const EPSILON = 2 ** -23; // float32's: energies are floored there

const TURN = 2 * Math.PI;
const WINDOWS = {
  povey: (i, length) => Math.pow(0.5 - 0.5 * Math.cos((TURN / (length - 1)) * i), 0.85),
  hann: (i, length) => 0.5 - 0.5 * Math.cos((TURN / length) * i), // periodic
};

/** What each preset fixes, as in streaming/features.py. */
const PRESETS = {
  kaldi: { window: "povey", remove_dc_offset: true, low_freq: 20, high_freq: -400 },
  nemo: { window: "hann", remove_dc_offset: false, low_freq: 0, high_freq: 8000 },
};

/** Raises InputError for settings that this page does not compute. */
export function checkSettings(settings) {
  const preset = PRESETS[settings?.preset];
  if (!preset) throw new InputError(`feature preset ${settings?.preset} is not known`);
  for (const [name, value] of Object.entries(preset)) {
    if (settings[name] !== value) {
      throw new InputError(`feature preset ${settings.preset} has ${name} ${value}`);
    }
  }
  const { sample_rate: rate, num_mel_bins: bins } = settings;
  if (!(rate >= 8000 && rate <= 192000 && bins >= 3 && bins <= 256)) {
    throw new InputError("features need 8000..192000 samples a second and 3..256 mel bins");
  }
}

// kaldi-native-fbank cuts the fraction off: 1102 samples of 25 ms at 44,100 Hz.
export const shiftSamples = (settings) =>
  Math.trunc((settings.sample_rate * settings.frame_shift_ms) / 1000);

export const lengthSamples = (settings) =>
  Math.trunc((settings.sample_rate * settings.frame_length_ms) / 1000);

/** Frames of a finished signal: frames are centred on their shift, so no edge is lost. */
export function numFrames(settings, numSamples) {
  const shift = shiftSamples(settings);
  return Math.floor((numSamples + Math.floor(shift / 2)) / shift);
}

/** The fewest samples after which `frames` frames are ready in an open stream. */
export function numSamples(settings, frames) {
  if (frames <= 0) return 0;
  const shift = shiftSamples(settings);
  const centre = (frames - 1) * shift + Math.floor(shift / 2);
  return centre + Math.ceil(lengthSamples(settings) / 2);
}

/** Features of a signal that arrives in pieces; how it was cut changes no bit of them. */
export class FeatureStream {
  constructor(settings) {
    this.settings = settings;
    this.shift = shiftSamples(settings);
    this.length = lengthSamples(settings);
    const padded = 2 ** Math.ceil(Math.log2(this.length));
    const window = WINDOWS[settings.window];
    this.window = Float32Array.from({ length: this.length }, (_, i) => window(i, this.length));
    this.frame = new Float32Array(padded);
    this.spectrum = new PowerSpectrum(padded);
    this.filters = buildFilters(settings, padded);
    this.numSamples = 0;
    this.numRead = 0;
    this.finished = false;
    this.start = 0; // index of pending[0] in the signal
    this.pending = new Float32Array(0);
  }

  /** Takes (numSamples,) float32 in [-1, 1] at the settings' rate; may be empty. */
  accept(samples) {
    if (this.finished) throw new Error("accept() after finish()");
    const pending = new Float32Array(this.pending.length + samples.length);
    pending.set(this.pending);
    pending.set(samples, this.pending.length);
    this.pending = pending;
    this.numSamples += samples.length;
  }

  /** Ends the signal: the last frames mirror it at its edge, as kaldi does offline. */
  finish() {
    this.finished = true;
  }

  /** Frames that can be read now. */
  get numReady() {
    const { settings, numSamples: samples } = this;
    if (this.finished) return numFrames(settings, samples) - this.numRead;
    const past = samples - Math.ceil(this.length / 2) - Math.floor(this.shift / 2);
    return Math.max(0, Math.floor(past / this.shift) + 1) - this.numRead;
  }

  /** The next (frames, F) as one Float32Array, or null while fewer are ready. */
  read(frames) {
    if (frames > this.numReady) return null;
    const bins = this.filters.length;
    const features = new Float32Array(frames * bins);
    for (let t = 0; t < frames; t++) {
      this.#extract(this.numRead + t);
      this.#compute(features.subarray(t * bins, (t + 1) * bins));
    }
    this.numRead += frames;
    this.#forget();
    return features;
  }

  /** this.frame = the samples of a frame, windowed; what lies outside the signal is mirrored. */
  #extract(index) {
    const { frame, length, pending, settings, start, window } = this;
    const first = index * this.shift + Math.floor(this.shift / 2) - Math.floor(length / 2) - start;
    for (let i = 0; i < length; i++) frame[i] = pending[mirror(first + i, pending.length)];
    frame.fill(0, length);
    if (settings.remove_dc_offset) removeMean(frame, length);
    const weight = f32(settings.preemphasis);
    for (let i = length - 1; i > 0; i--) frame[i] -= f32(weight * frame[i - 1]);
    frame[0] -= f32(weight * frame[0]);
    for (let i = 0; i < length; i++) frame[i] *= window[i];
  }

  #compute(features) {
    const power = this.spectrum.transform(this.frame);
    this.filters.forEach(({ first, weights }, bin) => {
      let energy = 0;
      for (let k = 0; k < weights.length; k++) {
        energy = f32(energy + f32(weights[k] * power[first + k]));
      }
      features[bin] = Math.log(Math.max(energy, EPSILON));
    });
  }

  /** Drops the samples before the next frame, so that memory does not grow with the stream. */
  #forget() {
    const next = this.numRead * this.shift + Math.floor(this.shift / 2) - Math.floor(this.length / 2);
    const drop = Math.min(next - this.start, this.pending.length);
    if (drop <= 0) return;
    this.pending = this.pending.slice(drop);
    this.start += drop;
  }
}

/** -1 -> 0, -2 -> 1, size -> size - 1: again and again for a signal shorter than a frame. */
function mirror(index, size) {
  while (index < 0 || index >= size) {
    index = index < 0 ? -index - 1 : 2 * size - 1 - index;
  }
  return index;
}

function removeMean(frame, length) {
  let sum = 0;
  for (let i = 0; i < length; i++) sum = f32(sum + frame[i]);
  const mean = f32(sum / length);
  for (let i = 0; i < length; i++) frame[i] -= mean;
}
