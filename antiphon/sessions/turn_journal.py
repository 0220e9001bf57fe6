"""What makes a running turn go on at another gateway: its request and how far it came, written by one at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import time
from typing import Protocol

from antiphon.errors import Conflict, NotFound, TooLarge
from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings


@dataclass(frozen=True, slots=True)
class Charged:
    """What of a turn is on its tenant's bill: its prompt, and so much of its answer."""

    token_ids: int
    frames: int
    # Handed to the client.
    samples: int


@dataclass(frozen=True, slots=True)
class JournalledTurn:
    # What the gateway that began the turn needs to run it again; nobody here looks inside.
    record: bytes
    progress: Progress = field(default_factory=Progress)
    is_finished: bool = False
    # None: nobody has charged anything.
    charged: Charged | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.record) + self.progress.size_bytes


class TurnWriter(Protocol):
    """The one who may write a turn, until another takes it over: then all raise Conflict. One call at a time."""

    async def append(self, progress: Progress) -> None:
        """What follows on what was appended before. Raises TooLarge, also where all of the tenant's are too large,
        NotFound when it expired, Unavailable; after the last it may be called again with the same, or with more
        behind it."""
        ...

    async def finish(self) -> None:
        """It stays readable until it expires."""
        ...

    async def charge(self, charged: Charged) -> None:
        """So much is on the bill from now on. Who may not write this must not charge: the one who took over does."""
        ...

    async def drop(self) -> None:
        """The turn is forgotten."""
        ...


class TurnJournal(Protocol):
    """Of each tenant its own. All raise Unavailable when the storage is away."""

    async def begin(self, tenant: str, turn_id: str, record: bytes) -> TurnWriter:
        """Raises Conflict for an id in use, TooLarge for a record beyond its bound or the tenant's."""
        ...

    async def size_bytes(self, tenant: str, turn_id: str) -> int:
        """Of what `read` gives. Raises NotFound."""
        ...

    async def read(self, tenant: str, turn_id: str) -> JournalledTurn:
        """Raises NotFound."""
        ...

    async def take_over(self, tenant: str, turn_id: str) -> tuple[JournalledTurn, TurnWriter]:
        """What was written before; from now on nobody else adds to it. Raises NotFound."""
        ...


class MemoryTurnJournal:
    def __init__(self, settings: SessionSettings, now_seconds: Callable[[], float] = time) -> None:
        self._settings = settings
        # The fence is who may write: it goes up with each who takes over.
        self._kept = ExpiringMap[tuple[int, JournalledTurn]](
            settings.turn_seconds, lambda kept: kept[1].size_bytes, now_seconds
        )

    async def begin(self, tenant: str, turn_id: str, record: bytes) -> TurnWriter:
        require_record_fits(record, self._settings)
        if self._kept.get(tenant, turn_id, refresh=False) is not None:
            raise turn_begun()
        if self._kept.size(tenant) + len(record) > self._settings.turn_journal_bytes:
            raise journals_full(self._settings)
        self._kept.put(tenant, turn_id, (1, JournalledTurn(record)))
        return _MemoryTurnWriter(self._kept, self._settings, tenant, turn_id, fence=1)

    async def size_bytes(self, tenant: str, turn_id: str) -> int:
        return self._found(tenant, turn_id)[1].size_bytes

    async def read(self, tenant: str, turn_id: str) -> JournalledTurn:
        return self._found(tenant, turn_id)[1]

    async def take_over(self, tenant: str, turn_id: str) -> tuple[JournalledTurn, TurnWriter]:
        fence, turn = self._found(tenant, turn_id)
        self._kept.put(tenant, turn_id, (fence + 1, turn))
        return turn, _MemoryTurnWriter(self._kept, self._settings, tenant, turn_id, fence + 1)

    def _found(self, tenant: str, turn_id: str) -> tuple[int, JournalledTurn]:
        found = self._kept.get(tenant, turn_id, refresh=False)
        if found is None:
            raise unknown_turn()
        return found


class _MemoryTurnWriter:
    def __init__(
        self,
        kept: ExpiringMap[tuple[int, JournalledTurn]],
        settings: SessionSettings,
        tenant: str,
        turn_id: str,
        fence: int,
    ) -> None:
        self._kept, self._settings = kept, settings
        self._tenant, self._turn_id, self._fence = tenant, turn_id, fence

    async def append(self, progress: Progress) -> None:
        turn = self._own_turn()
        longer = Progress.joined((turn.progress, progress))
        if longer.size_bytes > self._settings.turn_progress_bytes:
            raise progress_too_large(longer.size_bytes, self._settings)
        if self._kept.size(self._tenant) + progress.size_bytes > self._settings.turn_journal_bytes:
            raise journals_full(self._settings)
        self._kept.put(self._tenant, self._turn_id, (self._fence, replace(turn, progress=longer)))

    async def finish(self) -> None:
        self._kept.put(self._tenant, self._turn_id, (self._fence, replace(self._own_turn(), is_finished=True)))

    async def charge(self, charged: Charged) -> None:
        self._kept.put(self._tenant, self._turn_id, (self._fence, replace(self._own_turn(), charged=charged)))

    async def drop(self) -> None:
        self._own_turn()
        self._kept.drop(self._tenant, self._turn_id)

    def _own_turn(self) -> JournalledTurn:
        found = self._kept.get(self._tenant, self._turn_id)
        if found is None:
            raise unknown_turn()
        if found[0] != self._fence:
            raise taken_over()
        return found[1]


def require_record_fits(record: bytes, settings: SessionSettings) -> None:
    if len(record) > settings.turn_record_bytes:
        raise TooLarge(f"The record of a turn has at most {settings.turn_record_bytes} bytes; came {len(record)}.")


def progress_too_large(size_bytes: int, settings: SessionSettings) -> TooLarge:
    return TooLarge(f"The journal of a turn has at most {settings.turn_progress_bytes} bytes; came {size_bytes}.")


def journals_full(settings: SessionSettings) -> TooLarge:
    return TooLarge(
        f"The journals of a tenant's turns have at most {settings.turn_journal_bytes} bytes together; this one does "
        f"not fit any more. They are forgotten {settings.turn_seconds:g} seconds after their last use."
    )


def unknown_turn() -> NotFound:
    return NotFound("The turn is unknown or has expired. Ask again.")


def turn_begun() -> Conflict:
    return Conflict("A turn with this id has begun already. Take another id.")


def taken_over() -> Conflict:
    return Conflict("The turn goes on elsewhere: another gateway took it over.", code="taken_over")
