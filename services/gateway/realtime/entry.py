"""Who may open a live session, and as what it begins: everything that is refused before the connection is accepted."""

from dataclasses import dataclass
from typing import Final

from pydantic_core import from_json
from starlette.datastructures import Headers, QueryParams

from antiphon.errors import InvalidInput
from antiphon.tenancy.caller import Caller
from antiphon.tenancy.client_secrets import SECRET_PREFIX
from services.gateway.admission import Admission
from services.gateway.config import GatewaySettings
from services.gateway.realtime.commands import SessionJson, Terms
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.configuration import SessionConfig
from services.gateway.realtime.dialect import session_object
from services.gateway.realtime.dialect.frames import event_number
from services.gateway.served_model import ServedModel

SUBPROTOCOL: Final = "realtime"
# How browsers, which cannot set headers, bring their key.
_KEY_PROTOCOL: Final = "openai-insecure-api-key."


@dataclass(frozen=True, slots=True)
class Entry:
    terms: Terms
    values: SessionJson
    config: SessionConfig
    # The one to go on with.
    session_id: str | None
    # The last of its events that the client has, where he wants those that followed.
    last_event: int | None
    # Answered to a client that offered it.
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class Entrance:
    model: ServedModel
    settings: RealtimeSettings
    gateway: GatewaySettings
    admission: Admission

    async def enter(self, headers: Headers, query: QueryParams, offered: list[str]) -> Entry:
        """Raises what the client is answered instead of an upgrade."""
        _check_dialect(headers, query)
        caller, values = await self._known(headers, offered)
        name = query.get("model")
        if name is None and values is None and "session_id" not in query:
            raise InvalidInput(
                f"Missing required parameter: 'model'. Connect to /v1/realtime?model={self.model.model_id}.",
                param="model",
                code="missing_required_parameter",
            )
        if name is not None:
            self.model.check_name(name)
        terms = Terms(self.model, caller, self.settings, self.gateway)
        begun = values or session_object.initial(self.model)
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
        session_id = query.get("session_id")
        return Entry(terms, begun, terms.config_of(begun), session_id, _last_event(query, session_id), subprotocol)

    async def _known(self, headers: Headers, offered: list[str]) -> tuple[Caller, SessionJson | None]:
        """The caller, and the session that was set up for it."""
        by_protocol = next((p.removeprefix(_KEY_PROTOCOL) for p in offered if p.startswith(_KEY_PROTOCOL)), None)
        key = by_protocol or headers.get("authorization", "").partition(" ")[2].strip()
        if key.startswith(SECRET_PREFIX):
            grant = await self.admission.tenancy.secrets.find(key)
            values: SessionJson = from_json(grant.content)
            return await self.admission.known_by(grant.key_digest), values
        if by_protocol is not None:
            headers = Headers({**headers, "authorization": f"Bearer {by_protocol}"})
        return await self.admission.identify(headers), None


def _last_event(query: QueryParams, session_id: str | None) -> int | None:
    named = query.get("last_event_id")
    if named is not None and session_id is None:
        raise InvalidInput(
            "Missing required parameter: 'session_id'. 'last_event_id' names an event of that session.",
            param="session_id",
            code="missing_required_parameter",
        )
    return None if named is None or session_id is None else event_number(named, session_id)


def _check_dialect(headers: Headers, query: QueryParams) -> None:
    if "realtime=v1" in headers.get("openai-beta", ""):
        raise InvalidInput(
            "The beta form of the Realtime API is not served. Leave out the header 'OpenAI-Beta: realtime=v1' and use "
            "the GA form (in OpenAI's SDK: client.realtime, not client.beta.realtime).",
            param="OpenAI-Beta",
            code="beta_api_not_served",
        )
    if query.get("intent", "realtime") != "realtime" or "call_id" in query:
        raise InvalidInput(
            "Only realtime sessions over this web socket are served: no 'call_id', and no 'intent' but 'realtime'.",
            param="intent",
            code="unsupported_value",
        )
