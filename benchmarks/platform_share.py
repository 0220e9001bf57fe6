"""How much of a first packet is the platform's own: the time in which no model computes for the only turn there is.
Also how long a frame's fifteen residual codes take beside the Talker's step. On a CPU, where a call is over when its
result is there.

python benchmarks/platform_share.py --turns 16                                       # nano, this machine
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from unittest.mock import patch

import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.model.audio_encoder import AudioEncoder
from antiphon.telemetry.first_packet import FirstPacket
from antiphon.telemetry.span_records import SpanRecord
from benchmarks.profile_turn import Client
from services.codec.engine import CodecEngine
from services.embedded import EmbeddedSettings, running_platform
from services.talker.frame_steps import FrameSteps
from services.talker.runner import TalkerRunner
from services.thinker.runner import ThinkerRunner


class Span(NamedTuple):
    """Nanoseconds since the epoch, as those of traces."""

    start: int
    stop: int


@dataclass(slots=True)
class Steps:
    """When models computed, whichever thread it was on."""

    every: list[Span] = field(default_factory=list)
    talker: list[Span] = field(default_factory=list)
    residual_codes: list[Span] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        with ExitStack() as patched:
            for owner, name in (
                (AudioEncoder, "encode_windows"),
                (ThinkerRunner, "run"),
                (CodecEngine, "_compute"),
            ):
                patched.enter_context(_timed(owner, name, self.every))
            patched.enter_context(_timed(TalkerRunner, "run", self.every, self.talker))
            patched.enter_context(_timed(FrameSteps, "run", self.residual_codes))
            yield

    def outside_ms(self, window: Span) -> float:
        """Of the window, when no model computed."""
        outside, reached = 0, window.start
        for step in sorted(self.every):
            outside += max(0, min(step.start, window.stop) - reached)
            reached = max(reached, min(step.stop, window.stop))
        return (outside + window.stop - reached) / 1e6


@contextmanager
def _timed(owner: type, name: str, *into: list[Span]) -> Iterator[None]:
    compute: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: object) -> object:
        start = time.time_ns()
        try:
            return compute(*arguments)
        finally:
            for spans in into:
                spans.append(Span(start, time.time_ns()))

    with patch.object(owner, name, timed):
        yield


def first_packets(spans: Sequence[SpanRecord]) -> list[Span]:
    """From the arrival of each question to its first packet."""
    told = ((span.start_ns, FirstPacket.from_attributes(span.attributes)) for span in spans)
    return [Span(start, start + round(packet.total_ms * 1e6)) for start, packet in told if packet is not None]


def main(turns: Annotated[int, typer.Option(min=1)] = 8) -> None:
    """One turn after the other; the client is a process of its own."""
    steps = Steps()
    with tempfile.TemporaryDirectory() as folder, steps.noted():
        figures = Path(folder) / "figures.json"
        windows = asyncio.run(_asked(figures, turns))
        run = json.loads(figures.read_text())["runs"][0]
    shares = sorted(steps.outside_ms(window) for window in windows[-turns:])  # the first turn warms up
    whole = statistics.median((window.stop - window.start) / 1e6 for window in windows[-turns:])
    codes_ms, talker_ms = (
        statistics.median((span.stop - span.start) / 1e6 for span in spans)
        for spans in (steps.residual_codes, steps.talker)
    )
    print(
        f"{run['turns']} turns, medians: first packet {whole:.1f} ms, of it without a model's step "
        f"{statistics.median(shares):.1f} ms ({shares[0]:.1f} to {shares[-1]:.1f}); a Talker's step "
        f"{talker_ms:.1f} ms, of it residual codes {codes_ms:.1f} ms."
    )


async def _asked(figures: Path, turns: int) -> list[Span]:
    async with running_platform(EmbeddedSettings(default_checkpoint())) as platform:
        await Client(turns, 1).ask(platform.base_url, figures)
        return first_packets(platform.spans.spans())


if __name__ == "__main__":
    typer.run(main)
