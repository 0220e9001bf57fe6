"""What the engine itself costs a step: many requests through a model that computes nothing.

python benchmarks/engine_overhead.py
"""

import asyncio
import time

from antiphon.engine.decoder import Decoder, Outcome, Submission
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.sequence import Slice

OUTPUTS = 2000


class NullRunner:
    """Ends each request after OUTPUTS outputs; counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def run(self, slices: list[Slice[int]]) -> list[Outcome[int]]:
        self.steps += 1
        return [self._outcome(part) for part in slices]

    def release(self, request: int) -> None:
        """Holds nothing."""

    def _outcome(self, part: Slice[int]) -> Outcome[int]:
        sequence = part.sequence
        return Outcome((sequence.sampled_rows,), "length" if sequence.sampled_rows == OUTPUTS - 1 else None)


async def measure(requests: int) -> None:
    runner = NullRunner()
    limits = SchedulerLimits(max_running=requests, max_waiting=requests, rows_per_step=max(512, requests))
    decoder: Decoder[int, int] = Decoder(runner, limits, PagePool(requests * 200, 16), name="null")
    submissions = [Submission(number, 100, 100 + OUTPUTS, max_untaken=OUTPUTS) for number in range(requests)]

    async def read(submission: Submission[int]) -> None:
        async for _ in decoder.submit(submission):
            pass

    reading = [asyncio.create_task(read(submission)) for submission in submissions]
    await asyncio.sleep(0)
    started = time.process_time()
    decoder.start()
    await asyncio.gather(*reading)
    seconds = time.process_time() - started  # of both threads
    await decoder.stop()
    step, row = seconds / runner.steps * 1e6, seconds / (requests * OUTPUTS) * 1e6
    print(f"{requests:4d} requests: {step:7.1f} us of CPU a step, {row:5.2f} us an output, readers included")


async def main() -> None:
    for requests in (1, 4, 16, 64):
        await measure(requests)


if __name__ == "__main__":
    asyncio.run(main())
