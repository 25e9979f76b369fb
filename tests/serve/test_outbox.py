"""What waits for a slow reader: the newest partial, every final, never more than so many."""

import asyncio

import pytest

from compress.serve.outbox import MAX_FINALS, MAX_PARTIALS, Outbox, StuckReaderError


def collect(outbox_use, send_seconds=1.0, pause=0.0):
    """Puts what outbox_use says, then sends; returns what was sent."""
    sent = []

    async def send(message):
        await asyncio.sleep(pause)
        sent.append(message)

    async def main():
        outbox = Outbox(send, send_seconds)
        outbox_use(outbox)
        outbox.close()
        await outbox.run()
        return outbox

    return sent, asyncio.run(main())


def test_a_client_that_reads_gets_all_in_order():
    def use(outbox):
        outbox.put_partial("a")
        outbox.put_final("A")
        outbox.put_partial("b")

    assert collect(use)[0] == ["a", "A", "b"]


def test_stale_partials_are_dropped_finals_never():
    def use(outbox):
        for n in range(1000):
            outbox.put_partial(f"partial {n}")
            if n % 100 == 0:
                outbox.put_final(f"final {n}")
            assert len(outbox) <= MAX_PARTIALS + MAX_FINALS

    sent, outbox = collect(use)
    assert [m for m in sent if m.startswith("final")] == [f"final {n}" for n in range(0, 1000, 100)]
    assert sent[-1] == "partial 999"
    assert outbox.num_dropped == 1000 + 10 - len(sent) > 900


def test_too_many_finals():
    def use(outbox):
        for n in range(MAX_FINALS + 1):
            outbox.put_final(str(n))

    with pytest.raises(StuckReaderError):
        collect(use)


def test_a_reader_that_takes_nothing():
    with pytest.raises(StuckReaderError):
        collect(lambda outbox: outbox.put_partial("a"), send_seconds=0.01, pause=5)
