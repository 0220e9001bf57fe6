"""Redis as the rest sees it: a command or a script and its reply, or an error of the family within a bounded time."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Self, TypeAlias, cast

from redis import exceptions

from antiphon.errors import AntiphonError, AtCapacity, InternalError, Unavailable
from antiphon.storage.address import RedisAddress, read_address
from antiphon.storage.clients import OpenedClients, open_clients
from antiphon.storage.scripts import Script
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry.metrics import Metrics, process_metrics

_LOG = logging.getLogger(__name__)

Argument: TypeAlias = bytes | str | int | float
Reply: TypeAlias = "bytes | int | list[Reply] | None"

_PAUSE_BEFORE_REPEAT_SECONDS: Final = 0.02
_PROBE_KEY: Final = "antiphon:probe"
# The connection is gone, or its server may no longer write: another connection may do.
_BROKEN: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    OSError,
)
# The server answers that it cannot write for now: its disk, its replicas or a script that runs too long keep it.
_HINDERED: Final = ("MISCONF", "NOREPLICAS", "BUSY")
# Nobody can be asked now, or nobody lets us in.
_AWAY: Final = (*_BROKEN, TimeoutError, exceptions.RedisClusterException, exceptions.NoPermissionError)


def open_redis(url: str, settings: StorageSettings | None = None, metrics: Metrics | None = None) -> "Storage":
    """redis://, rediss://, unix://, redis+sentinel:// and redis+cluster:// (`address.py`). Connects at the first
    command. The caller closes it. Raises InvalidInput for a URL that cannot be read."""
    address = read_address(url)
    settings = settings or StorageSettings()
    return Storage(address, open_clients(address, settings), settings, metrics or process_metrics())


def open_storage(settings: StorageSettings, metrics: Metrics | None = None) -> "Storage | None":
    """None where the settings name no Redis."""
    if settings.url is None:
        return None
    return open_redis(settings.url.get_secret_value(), settings, metrics)


class Storage:
    """One Redis, of one event loop. At most `connections` commands are under way at once; the others wait their turn.

    Every method raises Unavailable when Redis cannot be asked, AtCapacity when it is full.
    """

    def __init__(
        self, address: RedisAddress, clients: OpenedClients, settings: StorageSettings, metrics: Metrics
    ) -> None:
        self._address, self._clients, self._settings = address, clients, settings
        self._metrics = metrics.storage
        self._room = asyncio.Semaphore(settings.connections)
        self._is_closed = False
        # Unknown before the first command.
        self._answers: bool | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, *command: Argument, moved_bytes: int = 0) -> Reply:
        """A command that may be sent twice. moved_bytes: of a large value, for which it may take longer."""
        return await self._within_time(command, True, moved_bytes)

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = (), *, moved_bytes: int = 0
    ) -> Reply:
        """Sends the script itself only where its digest is unknown yet."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await self._within_time(("EVALSHA", script.digest, *rest), script.repeatable, moved_bytes)
        except exceptions.NoScriptError:
            return await self._within_time(("EVAL", script.source, *rest), script.repeatable, moved_bytes)

    async def probe(self) -> bool:
        """Whether Redis answers now."""
        try:
            await self.execute("EXISTS", _PROBE_KEY)
        except AntiphonError:
            return False
        return True

    async def close(self) -> None:
        """Commands that come later raise Unavailable. Those under way are waited for, each no longer than its own time:
        one that was cut off would be repeated over a connection that nobody closes."""
        if self._is_closed:
            return
        self._is_closed = True
        for _ in range(self._settings.connections):
            await self._room.acquire()
        for client in (self._clients.commands, *self._clients.guides):
            await client.aclose()

    async def _within_time(self, command: Sequence[Argument], repeatable: bool, moved_bytes: int = 0) -> Reply:
        self._require_open()
        started = time.perf_counter()
        seconds = self._settings.answer_seconds + moved_bytes / self._settings.transfer_bytes_per_second
        try:
            async with asyncio.timeout(seconds), self._room:
                self._require_open()
                reply = await self._ask(command, repeatable)
        except exceptions.NoScriptError:
            raise
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            raise self._family_member(error) from None
        self._note(answers=True)
        self._metrics.observe(time.perf_counter() - started)
        return reply

    async def _ask(self, command: Sequence[Argument], repeatable: bool) -> Reply:
        commands = self._clients.commands
        try:
            return cast(Reply, await commands.execute_command(*command))
        except _BROKEN:
            if not repeatable:
                raise
        await asyncio.sleep(_PAUSE_BEFORE_REPEAT_SECONDS)
        return cast(Reply, await commands.execute_command(*command))

    def _require_open(self) -> None:
        if self._is_closed:
            raise Unavailable("The storage of sessions has been closed. Try again elsewhere.")

    def _family_member(self, error: Exception) -> AntiphonError:
        """What the server says may name keys and hosts: its class alone is told, and to the operator only."""
        kind = type(error).__name__
        if isinstance(error, exceptions.OutOfMemoryError):
            _LOG.error("Redis at %s is full.", self._address)
            return AtCapacity("The storage of sessions is full. Try again later.", retry_after_seconds=10.0)
        if isinstance(error, _AWAY) or str(error).startswith(_HINDERED):
            self._note(answers=False, why=kind)
            return Unavailable("The storage of sessions cannot be reached. Try again in a moment.")
        _LOG.error("Redis at %s refused a command: %s.", self._address, kind)
        return InternalError(f"The storage refused a command ({kind}).")

    def _note(self, *, answers: bool, why: str = "") -> None:
        """Tells once that it went away, and once that it is back."""
        if answers is self._answers:
            return
        self._answers = answers
        self._metrics.set_answers(answers)
        if answers:
            _LOG.info("Redis at %s answers.", self._address)
        else:
            _LOG.warning("Redis at %s cannot be reached (%s).", self._address, why)
