// The tensors that a target's graphs have, against what bundle.json lists: streaming/tensors.py.
//
// Letters: N streams, J joiner width, S0 and S1 state sizes, L layers and P width of a predictor.

import { BundleError } from "./errors.js";

const SHAPES = {
  sherpa_lstm: (info, width) => {
    const states = info.state_sizes.map((size) => [1, "N", size]);
    return {
      encoder: {
        inputs: [["N", info.chunk_frames, info.features.num_mel_bins], ...states],
        outputs: [["N", info.chunk_frames / info.subsampling, width], ...states],
      },
      decoder: { inputs: [["N", info.context_size]], outputs: [["N", width]] },
      joiner: { inputs: [["N", width], ["N", width]], outputs: [["N", info.vocab_size]] },
    };
  },
  sherpa_nemo: (info, width) => {
    const states = [...info.state_sizes.map((size) => ["N", 1, 1, size]), ["N"]];
    const [layers, , wide] = info.tensors.decoder.inputs[2]?.shape ?? [];
    const memory = [[layers, "N", wide], [layers, "N", wide]];
    const frames = info.chunk_frames / info.subsampling;
    return {
      encoder: {
        inputs: [["N", info.features.num_mel_bins, info.chunk_frames], ["N"], ...states],
        outputs: [["N", width, frames], ["N"], ...states],
      },
      decoder: {
        inputs: [["N", 1], ["N"], ...memory],
        outputs: [["N", width, 1], ["N"], ...memory],
      },
      joiner: { inputs: [["N", width, 1], ["N", width, 1]], outputs: [["N", info.vocab_size]] },
    };
  },
};

/** bundle.json must agree with itself; raises BundleError for the first tensor that does not. */
export function checkAgreement(info) {
  const width = info.tensors.joiner.inputs[0]?.shape[1];
  const wanted = SHAPES[info.target](info, width);
  for (const [graph, sides] of Object.entries(wanted)) {
    for (const [side, shapes] of Object.entries(sides)) {
      const found = info.tensors[graph][side].map(({ shape }) => shape);
      if (JSON.stringify(found) !== JSON.stringify(shapes)) {
        throw new BundleError(
          `bundle.json: tensors of ${graph} ${side} are ${JSON.stringify(found)}, its settings ` +
            `ask for ${JSON.stringify(shapes)}: export the bundle again`,
        );
      }
    }
  }
}

/** Order and names of a loaded graph's tensors must be the bundle's. */
export function checkNames(session, expected, name) {
  const sides = { inputs: session.inputNames, outputs: session.outputNames };
  for (const [side, found] of Object.entries(sides)) {
    const wanted = expected[side].map((tensor) => tensor.name);
    if (found.join() !== wanted.join()) {
      throw new BundleError(
        `${name}: ${side} are ${found.join(", ")}, bundle.json says ${wanted.join(", ")}: ` +
          "export the bundle again",
      );
    }
  }
}
