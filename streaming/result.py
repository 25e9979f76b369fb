"""What a recogniser heard."""

from dataclasses import dataclass, field

from streaming.tokens import pieces_to_text
from streaming.words import Word, build_words


@dataclass(frozen=True)
class Result:
    """What was heard since the stream began or was last reset.

    tokens: pieces; timestamps: seconds from start_seconds to the frame that emitted each;
    seconds: how much sound was decoded; start_seconds: where in the stream this segment starts;
    log_probs: log P of each token at its frame, in nats, sherpa-onnx's ys_probs;
    num_stable: the tokens at the beginning that later sound will not change, of whole words.
    """

    text: str
    tokens: list[str]
    timestamps: list[float]
    seconds: float
    start_seconds: float = 0.0
    segment: int = 0
    log_probs: list[float] = field(default_factory=list, compare=False)
    num_stable: int = field(default=0, compare=False)

    @property
    def stable_prefix(self) -> str:
        """The beginning of the text that later sound will not change."""
        return pieces_to_text(self.tokens[: self.num_stable])

    @property
    def words(self) -> list[Word]:
        """The words with times and confidences; made when asked for."""
        return build_words(self.tokens, self.timestamps, self.log_probs)
