// The triangles of both mel scales, as kaldi-native-fbank lays them: kaldi's, and Slaney's for nemo.

const f32 = Math.fround;

// Steps of float32, since an edge that lies on a bin of the spectrum must fall to the same side.
const SCALES = {
  kaldi: {
    fromHertz: (hertz) => f32(1127 * f32(Math.log(f32(1 + f32(hertz / 700))))),
    place: (mel) => mel, // kaldi's triangles are straight on the mel axis
    at: (hertz) => SCALES.kaldi.fromHertz(hertz),
    area: () => 1,
  },
  nemo: {
    fromHertz: (hertz) =>
      hertz <= 1000
        ? f32(f32(hertz * 3) / 200)
        : f32(15 + f32(f32(14.545078505785561) * f32(Math.log(f32(hertz / 1000))))),
    place: slaneyToHertz, // Slaney's are straight on the axis of frequencies
    at: (hertz) => hertz,
    area: (left, right) => f32(2 / f32(right - left)),
  },
};

function slaneyToHertz(mel) {
  if (mel <= 15) return f32(f32(200 / 3) * mel);
  return f32(1000 * f32(Math.exp(f32(f32(mel - 15) * f32(0.06875177742094911)))));
}

/**
 * One filter a mel bin: the first bin of the spectrum that it weighs, and the weights from there on.
 *
 * @param {object} settings the features of bundle.json
 * @param {number} length samples that the transform takes
 * @returns {{first: number, weights: Float32Array}[]} (F,)
 */
export function buildFilters(settings, length) {
  const scale = SCALES[settings.preset];
  const nyquist = settings.sample_rate / 2;
  const high = settings.high_freq > 0 ? settings.high_freq : nyquist + settings.high_freq;
  const low = scale.fromHertz(settings.low_freq);
  const step = f32(f32(scale.fromHertz(high) - low) / (settings.num_mel_bins + 1));
  const edge = (index) => scale.place(f32(low + f32(index * step)));
  const width = f32(settings.sample_rate / length);
  const axis = Array.from({ length: length / 2 + 1 }, (_, i) => scale.at(f32(width * i)));
  return Array.from({ length: settings.num_mel_bins }, (_, bin) => {
    return buildFilter(axis, edge(bin), edge(bin + 1), edge(bin + 2), scale.area);
  });
}

function buildFilter(axis, left, centre, right, area) {
  const inside = axis.flatMap((place, index) => (place > left && place < right ? [index] : []));
  const weights = inside.map((index) => {
    const place = axis[index];
    const rising = f32(f32(place - left) / f32(centre - left));
    const falling = f32(f32(right - place) / f32(right - centre));
    return (place <= centre ? rising : falling) * area(left, right);
  });
  return { first: inside[0] ?? 0, weights: Float32Array.from(weights) };
}
