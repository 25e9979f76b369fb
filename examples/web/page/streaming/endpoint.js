// When an utterance is over: the three rules of sherpa-onnx (streaming/endpoint.py).

/** Each fires when all of it holds; times in seconds. */
export const DEFAULT_RULES = [
  { needsSpeech: false, minTrailingSilence: 2.4, minUtterance: 0 },
  { needsSpeech: true, minTrailingSilence: 1.2, minUtterance: 0 },
  { needsSpeech: false, minTrailingSilence: 0, minUtterance: 20 },
];

/** True when any rule fires. */
export function isEndpoint(rules, trailingSilence, utterance) {
  const hasSpeech = utterance > trailingSilence;
  return rules.some(
    (rule) =>
      (hasSpeech || !rule.needsSpeech) &&
      trailingSilence >= rule.minTrailingSilence &&
      utterance >= rule.minUtterance,
  );
}
