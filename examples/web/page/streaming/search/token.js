// Who counts as silent: streaming/search/token.py.

import { UNKNOWN } from "../tokens.js";

/** The ids that emit nothing: blank, and <unk> where sherpa-onnx takes it for blank too. */
export function silentTokens(info, symbols) {
  const silent = new Set([info.blank_id]);
  if (info.target === "sherpa_lstm" && symbols.includes(UNKNOWN)) silent.add(symbols.indexOf(UNKNOWN));
  return silent;
}
