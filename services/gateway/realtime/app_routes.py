"""The routes of live sessions, made once."""

from dataclasses import dataclass

from fastapi import FastAPI

from antiphon.sessions.opening import Sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.telemetry.metrics import Metrics
from services.gateway import openapi
from services.gateway.config import GatewaySettings
from services.gateway.http.media_source import MediaSource
from services.gateway.http.request_body import BodyRoom
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.client_secrets import ClientSecret, ClientSecretsRoute
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.entry import Entrance
from services.gateway.realtime.route import PATH, RealtimeRoute
from services.gateway.realtime.session_keeper import SessionKeeper
from services.gateway.realtime.session_setup import SessionSetup
from services.gateway.served_model import ServedModel
from services.gateway.turns.answer_journal import AnswerJournals


@dataclass(frozen=True, slots=True)
class RealtimeParts:
    """Of the gateway, what live sessions stand on."""

    gateway: GatewaySettings
    model: ServedModel
    turns: TurnOpener
    media: MediaSource
    bodies: BodyRoom
    metrics: Metrics
    # None: live sessions are not kept.
    sessions: Sessions | None
    kept: SessionSettings


def add_realtime_routes(app: FastAPI, parts: RealtimeParts, settings: RealtimeSettings) -> None:
    entrance = Entrance(parts.model, settings, parts.gateway, parts.turns.admission)
    keeper = journals = None
    if parts.sessions is not None:
        keeper = SessionKeeper.of(parts.sessions, parts.kept, settings.keep_patience_seconds)
        journals = AnswerJournals.of(parts.sessions, parts.kept)
    setup = SessionSetup(parts.turns, parts.media, parts.metrics, keeper, journals)
    app.add_api_websocket_route(PATH, RealtimeRoute(entrance, setup, parts.metrics).connect)
    app.add_api_route(
        f"{PATH}/client_secrets",
        ClientSecretsRoute(parts.model, settings, parts.gateway, parts.turns.admission, parts.bodies).create,
        methods=["POST"],
        summary="A short-lived secret with which a browser opens a live session",
        response_model=ClientSecret,
        responses={status: told for status, told in openapi.CHAT_RESPONSES.items() if status != 200},
        openapi_extra=openapi.CLIENT_SECRET_BODY,
    )
