"""When an utterance is over: the three rules of sherpa-onnx (and kaldi before it)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EndpointRule:
    """Fires when all of it holds; times in seconds.

    needs_speech: some frame before the trailing silence must have emitted a token.
    """

    needs_speech: bool
    min_trailing_silence_seconds: float
    min_utterance_seconds: float

    def fires(self, trailing_silence_seconds: float, utterance_seconds: float) -> bool:
        has_speech = utterance_seconds > trailing_silence_seconds
        return (
            (has_speech or not self.needs_speech)
            and trailing_silence_seconds >= self.min_trailing_silence_seconds
            and utterance_seconds >= self.min_utterance_seconds
        )


DEFAULT_RULES = (
    EndpointRule(needs_speech=False, min_trailing_silence_seconds=2.4, min_utterance_seconds=0.0),
    EndpointRule(needs_speech=True, min_trailing_silence_seconds=1.2, min_utterance_seconds=0.0),
    EndpointRule(needs_speech=False, min_trailing_silence_seconds=0.0, min_utterance_seconds=20.0),
)


def is_endpoint(
    rules: tuple[EndpointRule, ...], trailing_silence_seconds: float, utterance_seconds: float
) -> bool:
    """True when any rule fires."""
    return any(rule.fires(trailing_silence_seconds, utterance_seconds) for rule in rules)
