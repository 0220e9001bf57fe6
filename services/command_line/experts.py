"""`antiphon experts`: the shards that hold the Thinker's experts, live."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Final

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from antiphon.errors import AntiphonError, InvalidInput, NotFound, PermissionDenied, Unavailable
from antiphon.experts.overview import ExpertsOverview
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.named_shards import NamedShards
from antiphon.wire.expert_links.shard_view import ShardView
from services.command_line.experts_display import render

_ANSWER_SECONDS: Final = 10.0
_PIPE_COLUMNS: Final = 200

Read = Callable[[], Awaitable[ExpertsOverview]]


def experts(
    address: Annotated[
        list[str] | None, typer.Option(help="host:port of a shard, or a name of several; asked instead of a gateway.")
    ] = None,
    base_url: Annotated[str, typer.Option(help="A gateway, which knows its shards.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str, typer.Option(envvar="ANTIPHON_ADMIN_KEY", help="Of an administrator, for the gateway.")
    ] = "",
    watch: Annotated[float | None, typer.Option(min=0.2, help="Look again every so many seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look, to standard output.")] = False,
) -> None:
    """Show the expert shards: how busy they are, which copies they hold, which experts are hot and for whom."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        asyncio.run(_show(_shards(address) if address else _gateway(base_url, api_key), watch, as_json=as_json))
    except AntiphonError as error:
        notes.print(f"[bold red]antiphon experts:[/] {escape(error.message)}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _show(opened: AbstractAsyncContextManager[Read], watch: float | None, *, as_json: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)
    async with AsyncExitStack() as stack:
        read = await stack.enter_async_context(opened)
        seen = await read()
        shown = None
        if not as_json and watch is not None:
            shown = stack.enter_context(Live(console=console, auto_refresh=False))
        while True:
            if as_json:
                sys.stdout.write(seen.model_dump_json() + "\n")
                sys.stdout.flush()
            elif shown is None:
                console.print(render(seen))
            else:
                shown.update(render(seen), refresh=True)
            if watch is None:
                return
            await asyncio.sleep(watch)
            seen = await read()


@asynccontextmanager
async def _shards(addresses: list[str]) -> AsyncIterator[Read]:
    channels = Channels()
    try:
        yield ShardView(channels, NamedShards(addresses)).read
    finally:
        await channels.close()


@asynccontextmanager
async def _gateway(base_url: str, api_key: str) -> AsyncIterator[Read]:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    url = base_url.rstrip("/").removesuffix("/v1")
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_ANSWER_SECONDS) as client:

        async def read() -> ExpertsOverview:
            try:
                response = await client.get("/v1/admin/experts")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unavailable(
                    f"Expected a gateway at {url}; it does not answer ({error}). Name it with --base-url, or shards "
                    "with --address."
                ) from error
            return _overview(response)

        yield read


def _overview(response: httpx.Response) -> ExpertsOverview:
    if response.status_code in (401, 403):
        raise PermissionDenied(
            "The gateway shows its shards to administrators: give the key of one with --api-key or ANTIPHON_ADMIN_KEY "
            "(antiphon keys create --admin), or name shards with --address."
        )
    if response.status_code == 404:
        raise NotFound(_message(response))
    if response.status_code != 200:
        raise Unavailable(f"The gateway answered {response.status_code}: {_message(response)}")
    try:
        return ExpertsOverview.model_validate_json(response.content)
    except ValidationError as error:
        raise InvalidInput("Expected a gateway of Antiphon; what answers there is something else.") from error


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "Expected a gateway of Antiphon; what answers there is something else."
