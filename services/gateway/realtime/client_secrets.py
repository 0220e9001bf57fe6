"""Short-lived secrets with which a browser opens a live session, without ever seeing the key of whoever made them."""

import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from antiphon.errors import InvalidInput
from antiphon.tenancy.client_secrets import Grant
from antiphon.tenancy.limiter import Demand
from services.gateway.admission import Admission
from services.gateway.config import GatewaySettings
from services.gateway.http.request_body import BodyRoom, read_json
from services.gateway.openai.part import RequestPart
from services.gateway.realtime.commands import SessionJson, Terms
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.dialect import session_object
from services.gateway.served_model import ServedModel
from services.gateway.tenants import caller_of


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
class ClientSecretsRoute:
    model: ServedModel
    settings: RealtimeSettings
    gateway: GatewaySettings
    admission: Admission
    bodies: BodyRoom

    async def create(self, request: Request) -> Response:
        caller = caller_of(request.scope)
        with self.bodies.share(caller.tenant) as share:
            body = await read_json(request, ClientSecretRequest, self.gateway, share)
        values = session_object.merged(session_object.initial(self.model), body.session or {})
        Terms(self.model, caller, self.settings, self.gateway).config_of(values)
        wanted = body.expires_after.seconds if body.expires_after else None
        expires_at = int(time.time()) + (wanted or self.settings.secret_seconds)
        async with self.admission.admit(caller, Demand(place=None)):
            grant = Grant(caller.key_digest, self._content(values), expires_at)
            secret = await self.admission.tenancy.secrets.keep(grant)
        session = values | {"id": f"sess_{secrets.token_hex(12)}", "object": "realtime.session"}
        return JSONResponse(ClientSecret(value=secret, expires_at=expires_at, session=session).model_dump())

    def _content(self, values: SessionJson) -> bytes:
        content, most = to_json(values), self.settings.secret_session_bytes
        if len(content) > most:
            raise InvalidInput(
                f"The session is too large: at most {most} bytes; got {len(content)}. Send the rest by session.update.",
                param="session",
                code="string_above_max_length",
            )
        return content
