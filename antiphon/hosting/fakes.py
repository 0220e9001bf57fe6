"""The fakes of `antiphon.wire.fakes` as hosted services: the whole platform without a model, over real gRPC."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from antiphon.hosting.service import HostedService
from antiphon.telemetry.names import StageName
from antiphon.wire import methods
from antiphon.wire.fakes import fake_stages
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod
from antiphon.wire.stages import Stages


def hosted(stages: Stages) -> list[HostedService]:
    return [
        _hosted(methods.ENCODE, stages.encoders.encode),
        _hosted(methods.GENERATE, stages.thinker.generate),
        _hosted(methods.SPEAK, stages.talker.speak),
        _hosted(methods.DECODE, stages.codec.decode),
    ]


def hosted_one(stage: StageName, pause_seconds: float = 0.0) -> HostedService:
    """A fake of its own for one stage, which pauses before every answer."""
    stages = fake_stages(pause_seconds)
    return next(service for service in hosted(stages) if service.stage == stage)


def _hosted(
    method: StreamMethod[RequestT, ResponseT],
    answer: Callable[[AsyncIterator[RequestT]], AsyncGenerator[ResponseT, None]],
) -> HostedService:
    def answer_call(requests: AsyncIterator[RequestT], _context: Any) -> AsyncGenerator[ResponseT, None]:
        return answer(requests)

    return HostedService(
        stage=method.stage,
        grpc_service=method.service,
        add_to_server=lambda server: method.add_to_server(server, answer_call),
    )
