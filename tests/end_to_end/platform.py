"""The whole platform in a thread of its own: every gRPC service over a Unix socket, the gateway on a real port.

It is put together from the same parts as `antiphon serve`, with a recorder between gateway and stages.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import uvicorn

from antiphon.hosting.grpc_server import serving
from antiphon.hosting.service import HostedService
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.codec.config import CodecSettings
from services.codec.servicer import host as host_codec
from services.encoders.config import EncodersSettings
from services.encoders.servicer import host as host_encoders
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.talker.config import TalkerSettings
from services.talker.servicer import host as host_talker
from services.thinker.config import ThinkerSettings
from services.thinker.servicer import host as host_thinker
from tests.end_to_end.conversations import openai_messages
from tests.end_to_end.recorded_stages import RecordedStages, RecordedTurn
from tests.reference.reference_inputs import ReferenceMessage

STARTUP_SECONDS = 60.0


class Platform:
    """Use as a context manager. `end_ids` are the ids that end an answer, `max_frames` bounds a turn's speech."""

    def __init__(
        self, checkpoint: Path, socket_directory: Path, *, max_frames: int, end_ids: Sequence[int] = ()
    ) -> None:
        self.checkpoint, self.max_frames, self.end_ids = checkpoint, max_frames, list(end_ids)
        self.base_url = ""
        self.recorded: RecordedStages
        self.services: list[HostedService] = []
        self._address = f"unix:{socket_directory / 'stages.sock'}"
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="platform", daemon=True)

    def __enter__(self) -> "Platform":
        self._thread.start()
        assert self._ready.wait(STARTUP_SECONDS), "the platform did not start in time"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STARTUP_SECONDS)

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
        answer = httpx.post(f"{self.base_url}/v1/chat/completions", json=body, headers=headers, timeout=300)
        assert answer.status_code == 200, answer.text
        return self.recorded.turns.pop(trace_id)

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

    def call(self, function: Any) -> Any:
        """Runs a plain function on the platform's event loop and gives its result."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        checkpoint = self.checkpoint
        self.services = [
            host_encoders(EncodersSettings(checkpoint=checkpoint)),
            host_thinker(ThinkerSettings(checkpoint=checkpoint)),
            host_talker(TalkerSettings(checkpoint=checkpoint)),
            host_codec(CodecSettings(checkpoint=checkpoint)),
        ]
        directory = StaticDirectory(dict.fromkeys(("encoders", "thinker", "talker", "codec"), self._address))
        async with serving(self.services, self._address), StageCaller(directory) as caller:
            self.recorded = RecordedStages(caller.stages())
            settings = GatewaySettings(checkpoint=checkpoint, max_speech_frames=self.max_frames)
            app = create_app(settings, self.recorded.as_stages())
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
            serving_http = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
                await asyncio.sleep(0.01)
            self.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()
            server.should_exit = True
            await serving_http
