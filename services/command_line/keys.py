"""`antiphon keys` and `antiphon usage`: tenants' keys and what they took, in the Redis of ANTIPHON_REDIS_URL."""

import asyncio
import getpass
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from antiphon.errors import AntiphonError, Conflict, InvalidInput, NotFound
from antiphon.storage.connection import open_storage
from antiphon.storage.settings import StorageSettings
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.key_desk import KeyWish, NewKey
from antiphon.tenancy.opening import Tenancy, open_tenancy
from antiphon.tenancy.records import KeyRecord, TenantRecord
from antiphon.tenancy.settings import TenancySettings
from antiphon.tenancy.usage_pages import every_record

keys = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True, add_completion=False)
usage = typer.Typer(help="What tenants took.", no_args_is_help=True, add_completion=False)

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9})([smhd])")
_PIPE_COLUMNS: Final = 240
_FOREVER: Final = float(1 << 40)

_Limit = Annotated[int | None, typer.Option(min=0, max=10**9, help="Of the tenant; unset leaves it as it is.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Made if there is none of this name.")],
    label: Annotated[str, typer.Option(help="For you to tell keys apart.")] = "",
    expires_in: Annotated[str | None, typer.Option(help="Such as 90d or 12h; never by default.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only these.")] = None,
    voice: Annotated[list[str] | None, typer.Option(help="Allow only these.")] = None,
    admin: Annotated[bool, typer.Option(help="May administer tenants and keys over HTTP.")] = False,
    requests_per_minute: _Limit = None,
    tokens_per_minute: _Limit = None,
    concurrent_turns: _Limit = None,
    concurrent_sessions: _Limit = None,
) -> None:
    """Make a key. It is written to standard output this once; only a digest of it is kept."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_turns": concurrent_turns,
        "concurrent_sessions": concurrent_sessions,
    }
    wish = KeyWish(tenant, label, _names(model), _names(voice), admin, _seconds(expires_in) if expires_in else None)

    async def make(tenancy: Tenancy) -> None:
        await _require_tenant(tenancy, tenant, {name: limit for name, limit in limits.items() if limit is not None})
        _show(await tenancy.desk().create_key(wish, _who()))

    _run(make)


@keys.command(name="list")
def list_keys(tenant: Annotated[str | None, typer.Option(help="Only of this one.")] = None) -> None:
    """All keys, as far as they may be shown."""

    async def show(tenancy: Tenancy) -> None:
        found = (await tenancy.registry.all())[1]
        # Whoever pipes it wants it whole.
        console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
        console.print(_table([key for key in found if tenant in (None, key.tenant)]))

    _run(show)


@keys.command()
def rotate(
    key: Annotated[str, typer.Argument(help="Its id, key_….")],
    overlap: Annotated[str, typer.Option(help="For so long the old key holds still.")] = "1h",
) -> None:
    """Make a key in the place of another."""
    seconds = _seconds(overlap)

    async def turn(tenancy: Tenancy) -> None:
        _show(await tenancy.desk().rotate(key, seconds, _who()))

    _run(turn)


@keys.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, key_….")]) -> None:
    """Take a key away for ever."""

    async def end(tenancy: Tenancy) -> None:
        record = await tenancy.desk().revoke(key, _who())
        _note(f"{record.id} of {record.tenant} is revoked.")

    _run(end)


@usage.command()
def export(
    tenant: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    since: Annotated[str | None, typer.Option(help="Such as 30d; everything by default.")] = None,
) -> None:
    """Write usage records to standard output, one JSON object a line, in the order of finishing for each tenant."""
    start = time.time() - _seconds(since) if since else 0.0

    async def write(tenancy: Tenancy) -> None:
        for name in [tenant] if tenant else await tenancy.usage.tenants():
            async for record in every_record(tenancy.usage, name, start, _FOREVER):
                sys.stdout.write(record.model_dump_json() + "\n")

    _run(write)


async def _require_tenant(tenancy: Tenancy, name: str, limits: dict[str, int]) -> None:
    """Makes it, or gives the one that there is these limits besides its others."""
    desk = tenancy.desk()
    try:
        known = await desk.tenant(name)
    except NotFound:
        await desk.create_tenant(_tenant(name, limits), _who())
        return
    if limits:
        told = TenantLimits(**{**known.limits.model_dump(), **limits})
        await desk.change_tenant(known.model_copy(update={"limits": told}), _who())


def _tenant(name: str, limits: dict[str, int]) -> TenantRecord:
    try:
        return TenantRecord(id=name, limits=TenantLimits(**limits))
    except ValidationError as error:
        raise InvalidInput(
            f"A tenant's name has 1 to 64 letters, digits, '.', '_', '@' or '-'; got '{name}'."
        ) from error


def _show(new: NewKey) -> None:
    """The key alone goes to standard output, for a pipe; what is said about it does not."""
    _note(f"{new.record.id} of {new.record.tenant}. Keep the key: it is not shown again.")
    sys.stdout.write(f"{new.key.secret}\n")


def _table(found: list[KeyRecord]) -> Table:
    table = Table(box=None)
    for column in ("id", "tenant", "label", "key", "scopes", "created", "state"):
        table.add_column(column, no_wrap=True)
    for key in found:
        shown, scopes = f"{key.prefix}…{key.last_four}", ",".join(sorted(key.scopes))
        table.add_row(key.id, key.tenant, escape(key.label), shown, scopes, _date(key.created_at), _state(key))
    return table


def _state(key: KeyRecord) -> str:
    if key.disabled:
        return "revoked"
    if key.expires_at is None:
        return "holds"
    return f"expired {_date(key.expires_at)}" if key.expires_at <= time.time() else f"until {_date(key.expires_at)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def _names(found: list[str] | None) -> frozenset[str] | None:
    return frozenset(found) if found else None


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        _note(f"Expected a time such as 90d, 12h, 30m or 10s; got '{text}'.")
        raise typer.Exit(2)
    return float(int(found[1]) * _UNITS[found[2]])


def _who() -> str:
    return f"command line ({getpass.getuser()})"


def _note(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(text))


def _run(work: Callable[[Tenancy], Awaitable[None]]) -> None:
    async def main() -> None:
        async with _tenancy() as tenancy:
            await work(tenancy)

    try:
        asyncio.run(main())
    except Conflict:
        _note("antiphon keys: somebody else changed it meanwhile. Try again.")
        raise typer.Exit(1) from None
    except AntiphonError as error:
        _note(f"antiphon keys: {error.message}")
        raise typer.Exit(1) from None


@asynccontextmanager
async def _tenancy() -> AsyncIterator[Tenancy]:
    storage = open_storage(StorageSettings())
    if storage is None:
        raise InvalidInput("Set ANTIPHON_REDIS_URL to the Redis of the gateways: keys are kept there.")
    async with storage:
        yield open_tenancy(storage, TenancySettings())
