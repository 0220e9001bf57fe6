"""The event loop and the decoder's thread at the same moment, and what a thread keeps that has nothing to do."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable

import pytest
import torch

from antiphon.engine.sequence import ALL_ROWS
from antiphon.errors import REPLICA_BROKEN, InternalError, Unavailable
from tests.engine.counting_decoder import all_of, decoding, submission, until
from tests.engine.counting_runner import CountingRunner


class _Interrupted(int):
    """A number; while one is added to it, something else happens."""

    meanwhile: Callable[[], None]

    def __add__(self, other: int) -> int:
        self.meanwhile()
        return int(self) + other


async def test_a_sequence_goes_on_that_filled_up_while_its_reader_took_an_output() -> None:
    async with decoding(CountingRunner()) as decoder:
        generation = decoder.submit(submission(3, available_rows=4, max_untaken=2))
        sequence = generation._line.sequence  # type: ignore[attr-defined]
        await until(lambda: sequence.emitted == 1)

        def fill_up() -> None:
            generation.extend(ALL_ROWS)
            while sequence.emitted < 2:
                time.sleep(0.001)
            time.sleep(0.02)  # until the thread waits for work

        sequence.taken = _Interrupted(0)
        sequence.taken.meanwhile = fill_up
        async with asyncio.timeout(10):
            assert await all_of(generation) == [0, 1, 2]


async def test_an_answer_that_was_left_unread_was_not_finished() -> None:
    """Whoever asks how it ended must not be told that all of it was given."""
    async with decoding(CountingRunner()) as decoder:
        generation = decoder.submit(submission(3))
        await until(lambda: generation.finish_reason is not None)
        assert await anext(generation) == 0
        generation.cancel()
        assert await all_of(generation) == []
        assert generation.finish_reason is None


async def test_an_idle_thread_keeps_nothing_of_the_last_request() -> None:
    async with decoding(CountingRunner()) as decoder:
        work = submission(2)
        request = weakref.ref(work.request)
        assert await all_of(decoder.submit(work)) == [0, 1]
        del work
        gc.collect()
        await until(lambda: request() is None)


async def test_a_lost_device_ends_the_loop_and_says_so() -> None:
    """No later step can succeed: whoever watches over the stage must learn that, and nobody may be let in."""
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        decoder.check()
        runner.breaks = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        waits = decoder.submit(submission(2, available_rows=0))
        for reader in (decoder.submit(submission(2)), waits):
            with pytest.raises(Unavailable, match="The counter broke before this request had ended") as caught:
                await all_of(reader)
            assert caught.value.code == REPLICA_BROKEN
        with pytest.raises(InternalError, match="The counter broke and takes no more work: AcceleratorError: CUDA"):
            decoder.check()
        with pytest.raises(Unavailable):
            decoder.submit(submission(2))
