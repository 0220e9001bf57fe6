"""Where conversations are kept between turns: the seam, its bounds, and the form in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Protocol

from antiphon.errors import AtCapacity, Conflict, NotFound, TooLarge
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_format import pack_conversation, unpack_conversation
from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.settings import SessionSettings


@dataclass(frozen=True, slots=True)
class StoredConversation:
    conversation: Conversation
    # Goes up by one with every save.
    version: int


class ConversationStore(Protocol):
    """Of each tenant its own; another tenant's id is as unknown as one that never was. Every use but `delete` begins
    the conversation's lifetime anew. All raise Unavailable when the storage is away."""

    async def create(self, tenant: str, conversation: Conversation) -> int:
        """Returns its version. Raises Conflict for an id in use, TooLarge, AtCapacity for one too many."""
        ...

    async def load(self, tenant: str, conversation_id: str) -> StoredConversation:
        """Raises NotFound."""
        ...

    async def save(self, tenant: str, conversation: Conversation, *, expected_version: int) -> int:
        """Returns the new version. Raises Conflict if somebody else saved meanwhile, NotFound, TooLarge."""
        ...

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """One that is not there is deleted already."""
        ...


class MemoryConversationStore:
    """Kept as bytes, as in Redis, so that both have one bound."""

    def __init__(self, settings: SessionSettings, now_seconds: Callable[[], float] = time) -> None:
        self._settings = settings
        # (version, packed conversation)
        self._kept = ExpiringMap[tuple[int, bytes]](settings.conversation_seconds, now_seconds=now_seconds)

    async def create(self, tenant: str, conversation: Conversation) -> int:
        data = packed_within_bounds(conversation, self._settings)
        if self._kept.get(tenant, conversation.id, refresh=False) is not None:
            raise id_taken()
        if self._kept.count(tenant) >= self._settings.conversation_count:
            raise too_many(self._settings)
        self._kept.put(tenant, conversation.id, (1, data))
        return 1

    async def load(self, tenant: str, conversation_id: str) -> StoredConversation:
        found = self._kept.get(tenant, conversation_id)
        if found is None:
            raise unknown_conversation()
        version, data = found
        return StoredConversation(unpack_conversation(data), version)

    async def save(self, tenant: str, conversation: Conversation, *, expected_version: int) -> int:
        data = packed_within_bounds(conversation, self._settings)
        found = self._kept.get(tenant, conversation.id, refresh=False)
        if found is None:
            raise unknown_conversation()
        if found[0] != expected_version:
            raise saved_by_another(expected_version, found[0])
        self._kept.put(tenant, conversation.id, (expected_version + 1, data))
        return expected_version + 1

    async def delete(self, tenant: str, conversation_id: str) -> None:
        self._kept.drop(tenant, conversation_id)

    def version(self, tenant: str, conversation_id: str) -> int:
        """0 for one that is not there."""
        found = self._kept.get(tenant, conversation_id)
        return 0 if found is None else found[0]


def packed_within_bounds(conversation: Conversation, settings: SessionSettings) -> bytes:
    """Raises TooLarge."""
    _require("items", len(conversation.items), settings.conversation_items)
    configured = len(conversation.configuration.encode("utf-8", "surrogatepass"))
    _require("bytes of configuration", configured, settings.conversation_configuration_bytes)
    data = pack_conversation(conversation)
    _require("bytes", len(data), settings.conversation_bytes)
    return data


def _require(what: str, amount: int, bound: int) -> None:
    if amount > bound:
        raise TooLarge(f"A conversation has at most {bound} {what}; came {amount}. Begin a new one.")


def unknown_conversation() -> NotFound:
    return NotFound("The conversation is unknown or has expired. Begin a new one.")


def id_taken() -> Conflict:
    return Conflict("A conversation with this id is there already. Take another id.")


def saved_by_another(expected_version: int, version: int) -> Conflict:
    return Conflict(
        f"The conversation was changed meanwhile: expected version {expected_version}; it is at {version}. "
        "Load it again and repeat the change."
    )


def too_many(settings: SessionSettings) -> AtCapacity:
    return AtCapacity(
        f"At most {settings.conversation_count} conversations are kept at once. Delete some, or try again later.",
        retry_after_seconds=60.0,
    )
