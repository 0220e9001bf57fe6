"""The whole platform for a test: every gRPC service over a Unix socket, the gateway on a real port.

It is put together from the same parts as `antiphon serve`, with a recorder between gateway and stages.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from antiphon.hosting.grpc_server import serving
from antiphon.hosting.http_server import serving_http
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.telemetry import tracing
from antiphon.telemetry.names import StageName
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.hosted import HOSTED_STAGES, hosted_service
from tests.end_to_end.conversations import openai_messages
from tests.end_to_end.recorded_stages import RecordedStages, RecordedTurn
from tests.event_loop_thread import EventLoopThread
from tests.reference.reference_inputs import ReferenceMessage

IDLE_SECONDS = 10.0


class WatchedSpans(SpanProcessor):
    """Every span that has started: those still open, and those that ended, by trace."""

    def __init__(self) -> None:
        self.open: dict[int, str] = {}
        self.ended: dict[str, list[ReadableSpan]] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open[span.get_span_context().span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None:
            self.open.pop(span.context.span_id, None)
            self.ended.setdefault(f"{span.context.trace_id:032x}", []).append(span)


@dataclass(frozen=True)
class RunningParts:
    base_url: str
    recorded: RecordedStages
    services: list[HostedService]
    spans: WatchedSpans = field(repr=False)


class Platform:
    """Use as a context manager. `end_ids` are the ids that end an answer, `max_frames` bounds a turn's speech, `stages`
    are those that the checkpoint has."""

    def __init__(
        self,
        checkpoint: Path,
        sockets: Path,
        *,
        max_frames: int,
        end_ids: Sequence[int] = (),
        stages: Sequence[StageName] = HOSTED_STAGES,
    ) -> None:
        self._stages = stages
        self.checkpoint, self.max_frames, self.end_ids = checkpoint, max_frames, list(end_ids)
        self._address = f"unix:{sockets / 'stages.sock'}"
        self._thread = EventLoopThread(self._running)

    def __enter__(self) -> "Platform":
        self._thread.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._thread.__exit__(kind, error, where)

    @property
    def parts(self) -> RunningParts:
        return self._thread.opened

    def speak(self, messages: Sequence[ReferenceMessage], *, voice: str = "ethan", **options: Any) -> RecordedTurn:
        """Asks over HTTP for text and speech, greedy; gives what passed between the stages."""
        trace_id = secrets.token_hex(16)
        body = {
            "model": self.checkpoint.name,
            "messages": openai_messages(messages),
            "modalities": ["text", "audio"],
            "audio": {"voice": voice, "format": "wav"},
            "temperature": 0,
            "talker_temperature": 0,
            "talker_repetition_penalty": 1.05,
            "mm_processor_kwargs": {"use_audio_in_video": True},
            **options,
        }
        headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
        answer = httpx.post(f"{self.parts.base_url}/v1/chat/completions", json=body, headers=headers, timeout=300)
        assert answer.status_code == 200, answer.text
        return self.parts.recorded.turns.pop(trace_id)

    def speak_together(
        self,
        conversations: Sequence[Sequence[ReferenceMessage]],
        *,
        max_completion_tokens: Sequence[int],
        start_gap_seconds: float,
    ) -> list[RecordedTurn]:
        """Each a little after the one before it, all at once in flight."""

        def one(index: int) -> RecordedTurn:
            time.sleep(index * start_gap_seconds)
            return self.speak(conversations[index], max_completion_tokens=max_completion_tokens[index])

        with ThreadPoolExecutor(len(conversations)) as threads:
            return list(threads.map(one, range(len(conversations))))

    def wait_until_idle(self) -> None:
        """Nothing runs, waits, holds a page or is left open; fails when that does not come about soon."""
        deadline = time.monotonic() + IDLE_SECONDS
        parts = self.parts
        while any(service.load() != ServiceLoad() for service in parts.services) or parts.spans.open:
            loads = {service.stage: service.load() for service in parts.services}
            assert time.monotonic() < deadline, f"still busy: {loads}, open spans {[*parts.spans.open.values()][:20]}"
            time.sleep(0.01)

    def wait_for_tasks(self, most: int) -> None:
        """Fails when more asyncio tasks than that go on living."""
        deadline = time.monotonic() + IDLE_SECONDS
        while len(names := self.task_names()) > most:
            assert time.monotonic() < deadline, f"expected at most {most} tasks: {names}"
            time.sleep(0.01)

    def task_names(self) -> list[str]:
        """Of the asyncio tasks that live now."""

        async def names() -> list[str]:
            return sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())

        return self._thread.run(names())

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[RunningParts]:
        spans = WatchedSpans()
        traced = tracing.configure("antiphon-test", spans)
        services = [hosted_service(stage, self.checkpoint) for stage in self._stages]
        directory = StaticDirectory(dict.fromkeys(self._stages, self._address))
        settings = GatewaySettings(checkpoint=self.checkpoint, max_speech_frames=self.max_frames)
        async with serving(services, self._address), StageCaller(directory) as caller:
            recorded = RecordedStages(caller.stages())
            app = create_app(settings, recorded.as_stages())
            async with serving_http(app, "127.0.0.1", 0) as port:
                yield RunningParts(f"http://127.0.0.1:{port}", recorded, services, spans)
        traced.close()
