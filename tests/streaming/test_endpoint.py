import numpy as np
import pytest

from streaming.endpoint import DEFAULT_RULES, is_endpoint


@pytest.mark.parametrize(
    ("trailing", "utterance", "fires"),
    [
        (0.0, 0.0, False),
        (1.2, 1.2, False),  # silence alone for 1.2 s
        (2.4, 2.4, True),  # silence alone for 2.4 s
        (1.16, 3.0, False),
        (1.2, 3.0, True),  # speech, then 1.2 s of silence
        (0.0, 19.96, False),
        (0.0, 20.0, True),  # too long
    ],
)
def test_the_three_rules(trailing, utterance, fires):
    assert is_endpoint(DEFAULT_RULES, trailing, utterance) is fires


def test_a_stream_ends_after_its_silence(recognizer, speech):
    stream = recognizer.create_stream()
    stream.accept(speech)
    assert not recognizer.is_endpoint(stream)
    assert recognizer.get_result(stream)
    heard = 0.0
    while not recognizer.is_endpoint(stream):
        stream.accept(np.zeros(1600, dtype=np.float32))
        heard += 0.1
        assert heard < 4
    assert heard > 1.1
    result = recognizer.get_result_all(stream)
    recognizer.reset(stream)
    assert recognizer.get_result(stream) == ""
    assert not recognizer.is_endpoint(stream)
    after = recognizer.get_result_all(stream)
    assert (after.segment, after.start_seconds) == (1, result.seconds)


def test_reset_keeps_the_encoder_and_the_last_labels(recognizer, speech):
    stream = recognizer.create_stream()
    stream.accept(speech)
    state, labels = stream.state, stream.search.memory[0]
    recognizer.reset(stream)
    assert stream.state is state
    assert np.array_equal(stream.search.memory[0], labels)
    recognizer.reset(stream)  # nothing was heard since: no context
    assert stream.search.memory[0].tolist() == [-1, 0]
    assert recognizer.get_result_all(stream).segment == 1
