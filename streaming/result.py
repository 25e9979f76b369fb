"""What a recogniser heard."""

from dataclasses import dataclass, field

from streaming.words import Word, build_words


@dataclass(frozen=True)
class Result:
    """What was heard since the stream began or was last reset.

    tokens: pieces; timestamps: seconds from start_seconds to the frame that emitted each;
    seconds: how much sound was decoded; start_seconds: where in the stream this segment starts;
    log_probs: log P of each token at its frame, in nats, sherpa-onnx's ys_probs;
    stable_prefix: the beginning of the text that later sound will not change.
    """

    text: str
    tokens: list[str]
    timestamps: list[float]
    seconds: float
    start_seconds: float = 0.0
    segment: int = 0
    log_probs: list[float] = field(default_factory=list, compare=False)
    stable_prefix: str = field(default="", compare=False)

    @property
    def words(self) -> list[Word]:
        """The words with times and confidences; made when asked for."""
        return build_words(self.tokens, self.timestamps, self.log_probs)
