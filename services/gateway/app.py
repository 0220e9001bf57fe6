"""The gateway as an ASGI application: everything is made here once and handed down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from services.gateway.admin import admin_router
from services.gateway.admin_experts import ReadExperts, experts_router, no_experts
from services.gateway.admission import Admission
from services.gateway.answer_journal import AnswerJournals
from services.gateway.audio.door import TurnDoor
from services.gateway.audio.routes import add_audio_routes
from services.gateway.chat_resumption import EVENTS_PATH, ResumptionRoute
from services.gateway.chat_route import CHAT_PATH, ChatRoute
from services.gateway.chat_streams import ChatStreams
from services.gateway.config import GatewaySettings
from services.gateway.error_envelope import install_handlers
from services.gateway.health import ReadinessCheck, StageProbe, always_ready, health_router
from services.gateway.idempotency import Idempotency
from services.gateway.media_source import MediaSource
from services.gateway.models import models_router
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.app_routes import RealtimeParts, add_realtime_routes
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.request_body import BodyRoom
from services.gateway.request_span import RequestSpan
from services.gateway.served_model import read_served_model
from services.gateway.tenants import Identified
from services.gateway.tenants_usage import usage_router
from services.gateway.turn import Conductor
from services.gateway.turn_gate import TurnGate
from services.gateway.turn_messages import TurnLimits


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
    metrics = metrics or process_metrics()
    media_client = httpx.AsyncClient(follow_redirects=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with media_client:
            yield
            await app.state.admission.close()

    app = FastAPI(
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
    app.state.gate = TurnGate(settings, metrics)
    app.state.readiness = ReadinessCheck(probe, app.state.gate, storage)
    kept = SessionSettings()
    app.state.sessions = open_sessions(storage, kept)
    journals = storage is not None if settings.journals_answers is None else settings.journals_answers
    app.state.journals = AnswerJournals.of(app.state.sessions, kept) if journals else None
    model = read_served_model(settings)
    tenancy = tenancy or open_tenancy(storage, TenancySettings())
    app.state.admission = Admission(tenancy, (model.model_id, *model.aliases), metrics)
    install_handlers(app)
    app.add_middleware(Idempotency, replies=tenancy.replies, answer_bytes=tenancy.settings.idempotent_answer_bytes)
    app.add_middleware(Identified, admission=app.state.admission)
    app.add_middleware(RequestSpan, metrics=metrics)
    live = RealtimeSettings()
    keeps = storage is not None if live.keeps_sessions is None else live.keeps_sessions
    app.state.live_sessions = app.state.sessions if keeps else None
    _add_routes(app, settings, live, stages, media_client, metrics)
    app.include_router(experts_router(experts), responses=openapi.ADMIN_REFUSALS)
    app.openapi = openapi.published(app)  # type: ignore[method-assign]
    return app


def _add_routes(
    app: FastAPI,
    settings: GatewaySettings,
    live: RealtimeSettings,
    stages: Stages,
    media_client: httpx.AsyncClient,
    metrics: Metrics,
) -> None:
    model = read_served_model(settings)
    sessions: Sessions = app.state.sessions
    limits = TurnLimits(
        context_tokens=model.context_tokens,
        talker_context_rows=model.talker_context_rows,
        default_answer_tokens=settings.default_answer_tokens,
        media_seconds=settings.media_seconds,
    )
    media, bodies = MediaSource(settings, media_client), BodyRoom(settings)
    conductor = Conductor(stages, PromptBuilder(settings.checkpoint), limits, settings)
    streams = ChatStreams(settings, conductor, sessions.transcripts, app.state.gate, app.state.journals)
    chat = ChatRoute(
        settings=settings,
        model=model,
        streams=streams,
        media=MediaSource(settings, media_client),
        admission=app.state.admission,
        bodies=bodies,
        metrics=metrics,
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
        ResumptionRoute(model, streams, app.state.admission, bodies, metrics).go_on,
        methods=["GET"],
        summary="Go on with a streamed answer from the last event that came",
        response_model=None,
        responses=openapi.EVENTS_RESPONSES,
    )
    turns = TurnOpener(conductor, app.state.gate, app.state.admission)
    parts = RealtimeParts(settings, model, turns, media, bodies, metrics, app.state.live_sessions, SessionSettings())
    add_realtime_routes(app, parts, live)
    door = TurnDoor(app.state.gate, app.state.admission, bodies, metrics)
    add_audio_routes(app, settings, model, conductor, door)
    app.include_router(models_router(model), responses=openapi.TENANT_REFUSALS | openapi.NOT_FOUND)
    tenancy: Tenancy = app.state.admission.tenancy
    usage = usage_router(tenancy.usage, tenancy.settings.usage_read_records)
    app.include_router(usage, responses=openapi.ADMIN_REFUSALS)
    app.include_router(admin_router(tenancy), responses=openapi.ADMIN_REFUSALS)
    app.include_router(health_router(app.state.readiness, metrics))
