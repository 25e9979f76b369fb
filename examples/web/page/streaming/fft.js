// The power spectrum of a real signal in float32, rounded step by step as in kaldi-native-fbank.
//
// Letters: n samples, which are read as n / 2 complex values.
// A bin 100 dB below the loudest is mostly rounding, so only the same steps in the same order give
// the same logarithm: with an order of one's own, features of 10 s were up to 9e-4 away. The order
// is that of kissfft (radix 4, then 2, decimation in time) in the wheel of kaldi-native-fbank 1.22.4
// for x86-64, whose compiler was allowed to reassociate sums: hence re + reC - reS in three places.

const f32 = Math.fround;

/** transform(samples) -> |X[k]|^2 for k = 0..n/2, in a buffer that the next call reuses. */
export class PowerSpectrum {
  /** @param {number} length n, a power of two, 8 or more */
  constructor(length) {
    this.half = length / 2;
    this.factors = factorise(this.half);
    [this.cosines, this.sines] = buildTwiddles(this.half, (i) => (-2 * Math.PI * i) / this.half);
    [this.endCosines, this.endSines] = buildTwiddles(
      this.half / 2,
      (i) => -Math.PI * ((i + 1) / this.half + 0.5),
    );
    this.real = new Float32Array(this.half);
    this.imaginary = new Float32Array(this.half);
    this.power = new Float32Array(this.half + 1);
  }

  /** @param {Float32Array} samples (n,) */
  transform(samples) {
    this.#work(samples, 0, this.half, 0, 1, 0);
    this.#separate();
    return this.power;
  }

  /** Transforms every stride-th complex value from `first` on into [start, start + size). */
  #work(samples, start, size, first, stride, level) {
    const radix = this.factors[level];
    const part = size / radix;
    for (let k = 0; k < radix; k++) {
      const source = first + k * stride;
      if (part === 1) {
        this.real[start + k] = samples[2 * source];
        this.imaginary[start + k] = samples[2 * source + 1];
      } else {
        this.#work(samples, start + k * part, part, source, stride * radix, level + 1);
      }
    }
    if (radix === 4) this.#butterfly4(start, part, stride);
    else this.#butterfly2(start, part, stride);
  }

  #butterfly2(start, part, stride) {
    const { real, imaginary, cosines, sines } = this;
    for (let k = 0; k < part; k++) {
      const a = start + k;
      const b = a + part;
      const c = cosines[k * stride];
      const s = sines[k * stride];
      const re = f32(f32(real[b] * c) - f32(imaginary[b] * s));
      const im = f32(f32(real[b] * s) + f32(imaginary[b] * c));
      real[b] = real[a] - re;
      imaginary[b] = imaginary[a] - im;
      real[a] += re;
      imaginary[a] += im;
    }
  }

  #butterfly4(start, part, stride) {
    const { real, imaginary, cosines, sines } = this;
    for (let k = 0; k < part; k++) {
      const a = start + k;
      const [b, c, d] = [a + part, a + 2 * part, a + 3 * part];
      const [i, j, l] = [k * stride, 2 * k * stride, 3 * k * stride];
      const re0 = f32(f32(real[b] * cosines[i]) - f32(imaginary[b] * sines[i]));
      const im0 = f32(f32(real[b] * sines[i]) + f32(imaginary[b] * cosines[i]));
      const reC = f32(real[c] * cosines[j]);
      const reS = f32(imaginary[c] * sines[j]);
      const im1 = f32(f32(real[c] * sines[j]) + f32(imaginary[c] * cosines[j]));
      const reD = f32(real[d] * cosines[l]);
      const reT = f32(imaginary[d] * sines[l]);
      const im2 = f32(f32(real[d] * sines[l]) + f32(imaginary[d] * cosines[l]));
      const re = f32(f32(real[a] + reC) - reS);
      const re5 = f32(f32(real[a] + reS) - reC);
      const im = f32(imaginary[a] + im1);
      const im5 = f32(imaginary[a] - im1);
      const re3 = f32(f32(re0 - reT) + reD);
      const re4 = f32(f32(re0 - reD) + reT);
      const im3 = f32(im2 + im0);
      real[c] = re - re3;
      imaginary[c] = im - im3;
      real[a] = re + re3;
      imaginary[a] = im + im3;
      real[b] = f32(re5 + im0) - im2;
      imaginary[b] = im5 - re4;
      real[d] = f32(re5 + im2) - im0;
      imaginary[d] = im5 + re4;
    }
  }

  /** n/2 complex values -> the n/2 + 1 bins of the real signal whose pairs they were made of. */
  #separate() {
    const { half, real, imaginary, endCosines, endSines, power } = this;
    power[0] = f32(real[0] + imaginary[0]) ** 2;
    power[half] = f32(real[0] - imaginary[0]) ** 2;
    for (let k = 1; k <= half / 2; k++) {
      const n = half - k;
      const evenRe = f32(real[k] + real[n]);
      const evenIm = f32(imaginary[k] - imaginary[n]);
      const oddRe = f32(real[k] - real[n]);
      const oddIm = f32(imaginary[k] + imaginary[n]);
      const c = endCosines[k - 1];
      const s = endSines[k - 1];
      const [reC, reS] = [f32(oddRe * c), f32(oddIm * s)];
      const im = f32(f32(oddRe * s) + f32(oddIm * c));
      power[k] = squared(f32(f32(evenRe + reC) - reS) / 2, f32(evenIm + im) / 2);
      power[n] = squared(f32(f32(evenRe + reS) - reC) / 2, f32(im - evenIm) / 2);
    }
  }
}

function squared(re, im) {
  return f32(re * re) + f32(im * im);
}

/** 4 as often as it divides, then 2: [4, 4, 4, 2] for 128. */
function factorise(size) {
  const factors = [];
  while (size % 4 === 0) {
    factors.push(4);
    size /= 4;
  }
  while (size > 1) {
    factors.push(2);
    size /= 2;
  }
  return factors;
}

function buildTwiddles(count, phase) {
  const angles = Array.from({ length: count }, (_, i) => phase(i));
  return [Float32Array.from(angles, Math.cos), Float32Array.from(angles, Math.sin)];
}
