"""Short-lived secrets with which a browser opens a live session, without ever seeing the key of whoever made them."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Protocol

from pydantic import BaseModel, Field, JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from antiphon.errors import Unauthenticated
from antiphon.tenancy.caller import Caller
from services.gateway.config import GatewaySettings
from services.gateway.openai_part import RequestPart
from services.gateway.realtime.commands import SessionJson, Terms
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.dialect import session_object
from services.gateway.request_body import BodyRoom, read_json
from services.gateway.served_model import ServedModel
from services.gateway.tenants import caller_of

PREFIX: Final = "ek_"


class ExpiresAfter(RequestPart):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=10, le=7200)] | None = None


class ClientSecretRequest(RequestPart):
    expires_after: ExpiresAfter | None = None
    session: dict[str, JsonValue] | None = Field(None, description="As in `session.update`.")


class ClientSecret(BaseModel):
    value: str
    expires_at: int
    session: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a secret stands for."""

    caller: Caller
    session: SessionJson = field(repr=False)
    # Seconds since the epoch.
    expires_at: int


class ClientSecrets(Protocol):
    async def keep(self, grant: Grant) -> str:
        """Returns the secret; it is known to nobody else."""
        ...

    async def find(self, secret: str) -> Grant:
        """Raises Unauthenticated."""
        ...


class MemoryClientSecrets:
    """In this process, by digest; the oldest are forgotten first."""

    def __init__(self, most: int, now_seconds: Callable[[], float] = time.time) -> None:
        self._most, self._now_seconds = most, now_seconds
        self._grants: OrderedDict[bytes, Grant] = OrderedDict()

    async def keep(self, grant: Grant) -> str:
        secret = PREFIX + secrets.token_urlsafe(32)
        self._grants[_digest(secret)] = grant
        while len(self._grants) > self._most:
            self._grants.popitem(last=False)
        return secret

    async def find(self, secret: str) -> Grant:
        grant = self._grants.get(_digest(secret))
        if grant is None or grant.expires_at <= self._now_seconds():
            self._grants.pop(_digest(secret), None)
            raise Unauthenticated(
                "This client secret is unknown or has expired. Make another at POST /v1/realtime/client_secrets."
            )
        return grant


@dataclass(frozen=True, slots=True)
class ClientSecretsRoute:
    model: ServedModel
    settings: RealtimeSettings
    gateway: GatewaySettings
    secrets: ClientSecrets
    bodies: BodyRoom

    async def create(self, request: Request) -> Response:
        caller = caller_of(request.scope)
        with self.bodies.share() as share:
            body = await read_json(request, ClientSecretRequest, self.gateway, share)
        values = session_object.merged(session_object.initial(self.model), body.session or {})
        Terms(self.model, caller, self.settings, self.gateway).config_of(values)
        wanted = body.expires_after.seconds if body.expires_after else None
        expires_at = int(time.time()) + (wanted or self.settings.secret_seconds)
        secret = await self.secrets.keep(Grant(caller, values, expires_at))
        session = values | {"id": f"sess_{secrets.token_hex(12)}", "object": "realtime.session"}
        return JSONResponse(ClientSecret(value=secret, expires_at=expires_at, session=session).model_dump())


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
