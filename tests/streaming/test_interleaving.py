"""Streams that are cut, batched, reset, copied, put away in any order hear what each would alone.

A machine does things to some streams and writes down what each was given; in the end every stream
must have said what a stream of its own says that is given the same, chunk by chunk.
"""

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import streaming
from streaming import GateSettings
from streaming.errors import InputError
from tests.streaming.tiny_bundle import make_speech

SPEECH = [make_speech(48000, seed) for seed in range(4)]
MAX_STREAMS = 5


class Diary:
    """What happened to a stream: its samples, and the number of chunks before each reset."""

    def __init__(self, voice=0):
        self.voice, self.given, self.num_chunks = voice, 0, 0
        self.resets, self.results, self.finished = [], [], False

    def copy(self):
        twin = Diary(self.voice)
        twin.__dict__.update(self.__dict__)
        twin.resets, twin.results = list(self.resets), list(self.results)
        return twin


class Streams(RuleBasedStateMachine):
    recognizer = None  # set by the test

    @initialize()
    def begin(self):
        self.streams = [(self.recognizer.create_stream(), Diary(voice)) for voice in range(3)]
        for stream, diary in self.streams:
            diary.given = 12000
            stream.accept_waveform(16000, SPEECH[diary.voice][:12000])

    def pick(self, data):
        return data.draw(st.integers(0, len(self.streams) - 1))

    @rule(voice=st.integers(0, 3))
    @precondition(lambda self: len(self.streams) < MAX_STREAMS)
    def create(self, voice):
        self.streams.append((self.recognizer.create_stream(), Diary(voice)))

    @rule(data=st.data(), num_samples=st.sampled_from([0, 1, 1600, 5000, 12000]))
    def accept(self, data, num_samples):
        stream, diary = self.streams[self.pick(data)]
        samples = SPEECH[diary.voice][diary.given : diary.given + num_samples]
        if diary.finished:
            with pytest.raises(InputError):
                stream.accept_waveform(16000, samples)
            return
        stream.accept_waveform(16000, samples)
        diary.given += len(samples)

    @rule(data=st.data())
    def decode(self, data):
        ready = [(s, d) for s, d in self.streams if self.recognizer.is_ready(s)]
        if not ready:
            return
        chosen = data.draw(st.lists(st.sampled_from(ready), unique_by=id, min_size=1))
        self.recognizer.decode_streams([stream for stream, _ in chosen])
        for _, diary in chosen:
            diary.num_chunks += 1

    @rule(data=st.data())
    def reset(self, data):
        stream, diary = self.streams[self.pick(data)]
        diary.results.append(self.recognizer.get_result_all(stream))
        diary.resets.append(diary.num_chunks)
        self.recognizer.reset(stream)

    @rule(data=st.data())
    @precondition(lambda self: len(self.streams) < MAX_STREAMS)
    def copy(self, data):
        stream, diary = self.streams[self.pick(data)]
        self.streams.append((stream.copy(), diary.copy()))

    @rule(data=st.data())
    def put_away(self, data):
        number = self.pick(data)
        stream, diary = self.streams[number]
        self.streams[number] = (self.recognizer.resume_stream(stream.pause()), diary)

    @rule(data=st.data())
    def finish(self, data):
        stream, diary = self.streams[self.pick(data)]
        stream.input_finished()
        diary.finished = True

    def teardown(self):
        for stream, diary in getattr(self, "streams", []):
            diary.results.append(self.recognizer.get_result_all(stream))
            assert diary.results == self.alone(diary)

    def alone(self, diary):
        """The results of a stream that was given it all at once and decoded without others."""
        stream, results, num_chunks = self.recognizer.create_stream(), [], 0
        stream.accept_waveform(16000, SPEECH[diary.voice][: diary.given])
        if diary.finished:
            stream.input_finished()
        for reset in [*diary.resets, None]:
            until = diary.num_chunks if reset is None else reset
            while num_chunks < until:
                self.recognizer.decode_stream(stream)
                num_chunks += 1
            results.append(self.recognizer.get_result_all(stream))
            if reset is not None:
                self.recognizer.reset(stream)
        return results


def run_machine(recognizer, num_examples, phases=tuple(Phase)):
    machine = type("Machine", (Streams,), {"recognizer": recognizer})
    chosen = settings(
        max_examples=num_examples, stateful_step_count=25, deadline=None, phases=phases
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.parametrize(
    ("options", "num_examples"),
    [
        ({}, 15),
        ({"decoding_method": "modified_beam_search", "hotwords": ["ak bl :3"]}, 8),
        ({"gate": GateSettings(hangover_seconds=0.5)}, 8),
    ],
    ids=["greedy", "beam", "gate"],
)
def test_streams_do_not_disturb_each_other(bundle, options, num_examples):
    run_machine(streaming.open_bundle(bundle, "fp32", **options), num_examples)


def test_a_machine_that_mixes_streams_up_is_noticed(bundle):
    """The test can fail: here every batch hands out its states in the wrong order."""
    recognizer = streaming.open_bundle(bundle, "fp32")
    encode = recognizer.session.encode

    def encode_wrongly(chunk, state):
        encoded, after = encode(chunk, state)
        return encoded, tuple(part[:, ::-1] for part in after)

    recognizer.session.encode = encode_wrongly
    with pytest.raises(AssertionError):
        run_machine(recognizer, 60, (Phase.generate,))
