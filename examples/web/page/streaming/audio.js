// Samples that are checked, and WAV files to mono samples, bit for bit as streaming/audio.py has them.
// Other formats are the browser's to decode (sound.js), which resamples by its own filter.

import { AudioError } from "./errors.js";

const MAX_LEVEL = 64; // far over full scale, far under int16 cast to float
const UNKNOWN_SIZE = 0x7ffff000; // sizes from here on, and 0: a writer to a pipe did not know it
const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

/** One value of a sample in [-1, 1]: (view, offset) -> number, by format and bits. */
const READERS = {
  [`${PCM} 8`]: (view, at) => (view.getUint8(at) - 128) / 128,
  [`${PCM} 16`]: (view, at) => view.getInt16(at, true) / 32768,
  [`${PCM} 24`]: (view, at) => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 8388608,
  [`${PCM} 32`]: (view, at) => view.getInt32(at, true) / 2147483648,
  [`${FLOAT} 32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT} 64`]: (view, at) => view.getFloat64(at, true),
};

/** Raises AudioError for samples that are not finite or far beyond [-1, 1]. */
export function checkSamples(samples) {
  const wrong = samples.findIndex((sample) => !(Math.abs(sample) <= MAX_LEVEL)); // or NaN
  if (wrong < 0) return;
  throw new AudioError(
    Number.isFinite(samples[wrong])
      ? `samples reach beyond ±${MAX_LEVEL}: scale them to [-1, 1]`
      : `sample ${wrong} is not finite: repair or leave out the sound`,
  );
}

/** True for a file that starts like a WAV file. */
export function isWav(buffer) {
  if (buffer.byteLength < 12) return false;
  const view = new DataView(buffer);
  return view.getUint32(0) === 0x52494646 && view.getUint32(8) === 0x57415645; // RIFF, WAVE
}

/** An ArrayBuffer -> {samples: mono Float32Array, sampleRate}; raises AudioError. */
export function parseWav(buffer) {
  const view = new DataView(buffer);
  let format = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const name = view.getUint32(at);
    const size = view.getUint32(at + 4, true);
    if (name === 0x666d7420 && at + 24 <= view.byteLength) format = readFormat(view, at + 8); // fmt
    if (name === 0x64617461) return readSamples(view, at + 8, size, format); // data
    at += 8 + size + (size % 2);
  }
  throw new AudioError("the WAV file ends before its sound: copy or record it again");
}

function readFormat(view, at) {
  const tag = view.getUint16(at, true);
  const channels = view.getUint16(at + 2, true);
  const bits = view.getUint16(at + 14, true);
  const known = tag === EXTENSIBLE && at + 26 <= view.byteLength ? view.getUint16(at + 24, true) : tag;
  const read = READERS[`${known} ${bits}`];
  if (!read || channels < 1 || channels > 64) {
    throw new AudioError("the WAV file is neither PCM nor float: convert it to 16-bit PCM");
  }
  return { read, channels, bytes: bits / 8, sampleRate: view.getUint32(at + 4, true) };
}

function readSamples(view, at, size, format) {
  if (!format) throw new AudioError("the WAV file does not say its format: record it again");
  const left = view.byteLength - at;
  if (left < size && size < UNKNOWN_SIZE) {
    throw new AudioError(`the WAV file holds ${left} of ${size} bytes of sound: it is truncated`);
  }
  const { read, channels, bytes, sampleRate } = format;
  const count = Math.floor(Math.min(left, size || left) / (bytes * channels));
  if (count === 0) throw new AudioError("the WAV file holds no sound: record it again");
  const samples = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) {
      const value = Math.fround(read(view, at + (i * channels + channel) * bytes));
      sum = Math.fround(sum + value);
    }
    samples[i] = sum / channels;
  }
  return { samples, sampleRate };
}
