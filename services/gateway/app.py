"""The gateway as an ASGI application: everything is made here once and handed down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import httpx
from fastapi import FastAPI

from antiphon.prompt.prompt import PromptBuilder
from antiphon.sessions.opening import Sessions, open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage
from antiphon.telemetry.metrics import Metrics, process_metrics
from antiphon.tenancy.opening import Tenancy, open_tenancy
from antiphon.tenancy.settings import TenancySettings
from antiphon.wire.stages import Stages
from services.gateway import openapi
from services.gateway.admission import Admission
from services.gateway.audio.door import TurnDoor
from services.gateway.audio.routes import add_audio_routes
from services.gateway.chat.resumption import EVENTS_PATH, ResumptionRoute
from services.gateway.chat.route import CHAT_PATH, ChatRoute
from services.gateway.chat.streams import ChatStreams
from services.gateway.config import GatewaySettings
from services.gateway.http.error_envelope import install_handlers
from services.gateway.http.idempotency import Idempotency
from services.gateway.http.media_source import MediaSource
from services.gateway.http.request_body import BodyRoom
from services.gateway.http.request_span import RequestSpan
from services.gateway.models import models_router
from services.gateway.operators.admin import admin_router
from services.gateway.operators.experts import ReadExperts, experts_router, no_experts
from services.gateway.operators.health import ReadinessCheck, StageProbe, always_ready, health_router
from services.gateway.operators.usage import usage_router
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.app_routes import RealtimeParts, add_realtime_routes
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.served_model import ServedModel, read_served_model
from services.gateway.tenants import Identified
from services.gateway.turns.answer_journal import AnswerJournals
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.gate import TurnGate
from services.gateway.turns.messages import TurnLimits


@dataclass(frozen=True, slots=True)
class _Parts:
    """What routes are made of, each made once."""

    settings: GatewaySettings
    live: RealtimeSettings
    kept: SessionSettings
    model: ServedModel
    sessions: Sessions
    admission: Admission
    gate: TurnGate
    readiness: ReadinessCheck
    conductor: Conductor
    media: MediaSource
    bodies: BodyRoom
    metrics: Metrics
    # Answers and live sessions can go on at another gateway.
    keeps_answers: bool
    keeps_sessions: bool

    @property
    def journals(self) -> AnswerJournals | None:
        return AnswerJournals.of(self.sessions, self.kept) if self.keeps_answers else None


def create_app(
    settings: GatewaySettings,
    stages: Stages,
    probe: StageProbe = always_ready,
    metrics: Metrics | None = None,
    storage: Storage | None = None,
    tenancy: Tenancy | None = None,
    experts: ReadExperts = no_experts,
) -> FastAPI:
    """`stages` and `storage` belong to the caller, who closes them; without a storage all state is in this process.
    `tenancy` is made of them and of ANTIPHON_ variables where it is not given. `experts`: for administrators to see.
    Closing `app.state.gate` begins its end."""
    media_client = httpx.AsyncClient(follow_redirects=False)
    tenancy = tenancy or open_tenancy(storage, TenancySettings())
    parts = _parts(settings, stages, probe, metrics or process_metrics(), storage, tenancy, media_client)
    app = _application(parts.admission, media_client)
    app.state.gate, app.state.readiness, app.state.admission = parts.gate, parts.readiness, parts.admission
    app.state.sessions, app.state.journals = parts.sessions, parts.journals
    app.state.live_sessions = parts.sessions if parts.keeps_sessions else None
    install_handlers(app)
    app.add_middleware(Idempotency, replies=tenancy.replies, answer_bytes=tenancy.settings.idempotent_answer_bytes)
    app.add_middleware(Identified, admission=parts.admission)
    app.add_middleware(RequestSpan, metrics=parts.metrics)
    _add_chat_routes(app, parts)
    _add_spoken_routes(app, parts)
    _add_operators_routes(app, parts, experts)
    app.openapi = openapi.published(app)  # type: ignore[method-assign]
    return app


def _parts(
    settings: GatewaySettings,
    stages: Stages,
    probe: StageProbe,
    metrics: Metrics,
    storage: Storage | None,
    tenancy: Tenancy,
    media_client: httpx.AsyncClient,
) -> _Parts:
    model, live, kept = read_served_model(settings), RealtimeSettings(), SessionSettings()
    gate = TurnGate(settings, metrics)
    is_shared = storage is not None
    return _Parts(
        settings=settings,
        live=live,
        kept=kept,
        model=model,
        sessions=open_sessions(storage, kept),
        admission=Admission(tenancy, (model.model_id, *model.aliases), metrics),
        gate=gate,
        readiness=ReadinessCheck(probe, gate, storage),
        conductor=Conductor(stages, PromptBuilder(settings.checkpoint), _limits(settings, model), settings),
        media=MediaSource(settings, media_client),
        bodies=BodyRoom(settings),
        metrics=metrics,
        keeps_answers=is_shared if settings.journals_answers is None else settings.journals_answers,
        keeps_sessions=is_shared if live.keeps_sessions is None else live.keeps_sessions,
    )


def _limits(settings: GatewaySettings, model: ServedModel) -> TurnLimits:
    return TurnLimits(
        context_tokens=model.context_tokens,
        talker_context_rows=model.talker_context_rows,
        default_answer_tokens=settings.default_answer_tokens,
        media_seconds=settings.media_seconds,
    )


def _application(admission: Admission, media_client: httpx.AsyncClient) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with media_client:
            yield
            await admission.close()

    return FastAPI(
        title="Antiphon",
        version=version("antiphon"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        # It would put spans between ours, and what users say into logs.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )


def _add_chat_routes(app: FastAPI, parts: _Parts) -> None:
    streams = ChatStreams(parts.settings, parts.conductor, parts.sessions.transcripts, parts.gate, app.state.journals)
    chat = ChatRoute(
        settings=parts.settings,
        model=parts.model,
        streams=streams,
        media=parts.media,
        admission=parts.admission,
        bodies=parts.bodies,
        metrics=parts.metrics,
    )
    app.add_api_route(
        CHAT_PATH,
        chat.answer,
        methods=["POST"],
        summary="Answer a conversation in text and speech",
        response_model=None,
        responses=openapi.CHAT_RESPONSES,
        openapi_extra=openapi.CHAT_BODY,
    )
    app.add_api_route(
        EVENTS_PATH,
        ResumptionRoute(parts.model, streams, parts.admission, parts.bodies, parts.metrics).go_on,
        methods=["GET"],
        summary="Go on with a streamed answer from the last event that came",
        response_model=None,
        responses=openapi.EVENTS_RESPONSES,
    )


def _add_spoken_routes(app: FastAPI, parts: _Parts) -> None:
    turns = TurnOpener(parts.conductor, parts.gate, parts.admission)
    live = RealtimeParts(
        parts.settings,
        parts.model,
        turns,
        parts.media,
        parts.bodies,
        parts.metrics,
        app.state.live_sessions,
        parts.kept,
    )
    add_realtime_routes(app, live, parts.live)
    door = TurnDoor(parts.gate, parts.admission, parts.bodies, parts.metrics)
    add_audio_routes(app, parts.settings, parts.model, parts.conductor, door)


def _add_operators_routes(app: FastAPI, parts: _Parts, experts: ReadExperts) -> None:
    tenancy = parts.admission.tenancy
    usage = usage_router(tenancy.usage, tenancy.settings.usage_read_records)
    app.include_router(models_router(parts.model), responses=openapi.TENANT_REFUSALS | openapi.NOT_FOUND)
    app.include_router(usage, responses=openapi.ADMIN_REFUSALS)
    app.include_router(admin_router(tenancy), responses=openapi.ADMIN_REFUSALS)
    app.include_router(health_router(parts.readiness, parts.metrics))
    app.include_router(experts_router(experts), responses=openapi.ADMIN_REFUSALS)
