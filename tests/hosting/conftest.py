"""A real server on a Unix socket, a real client to it, and the spans that both leave."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import RunningServer, ServerLimits, serving
from antiphon.telemetry import tracing
from antiphon.telemetry.names import STAGES
from antiphon.telemetry.span_records import SpanRing
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.stages import Stages

Opened = tuple[RunningServer, StageCaller]
Opener = Callable[..., AbstractAsyncContextManager[Opened]]


@pytest.fixture
def ring() -> Iterator[SpanRing]:
    ring = SpanRing()
    traced = tracing.configure("antiphon-test", ring)
    yield ring
    traced.close()


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """Hosts the given stages and calls them, over a socket of this test's own."""

    @asynccontextmanager
    async def open_both(
        stages: Stages, limits: ServerLimits | None = None, call_limits: CallLimits | None = None
    ) -> AsyncIterator[Opened]:
        address = f"unix:{tmp_path}/stages.sock"
        directory = StaticDirectory({stage: [address] for stage in STAGES})
        async with (
            serving(fakes.hosted(stages), address, limits or ServerLimits(drain_seconds=1)) as server,
            StageCaller(directory, call_limits) as caller,
        ):
            yield server, caller

    return open_both
