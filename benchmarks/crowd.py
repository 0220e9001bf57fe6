"""Clients in a process of their own, who ask again at once: what they cost delays nobody else's clock."""

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Final, Protocol

import httpx

from services.command_line.answer_stream import AnswerRefusedError
from services.command_line.bench.turn_client import time_turn

# Before a refused one tries again.
_PAUSE_SECONDS: Final = 0.3
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many clients with one key, each asking these questions in turn."""

    url: str
    key: str
    clients: int
    bodies: Sequence[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Answered:
    turns: int
    refused: int


class Asking(Protocol):
    def end(self) -> Answered:
        """They hang up."""
        ...


@dataclass(slots=True)
class _Asking:
    connection: Connection

    def end(self) -> Answered:
        self.connection.send(None)
        answered: Answered = self.connection.recv()
        return answered


@contextmanager
def crowds() -> Iterator["Crowds"]:
    """A process for one crowd after the other."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield Crowds(here)
    finally:
        here.close()
        process.terminate()
        process.join(_STOP_SECONDS)


@dataclass(frozen=True, slots=True)
class Crowds:
    connection: Connection

    def ask(self, crowd: Crowd) -> Asking:
        self.connection.send(crowd)
        return _Asking(self.connection)


def _serve(connection: Connection) -> None:
    while True:
        crowd: Crowd = connection.recv()
        connection.send(asyncio.run(_until_told(crowd, connection)))


async def _until_told(crowd: Crowd, connection: Connection) -> Answered:
    counts = {"turns": 0, "refused": 0}
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {crowd.key}"}
    async with httpx.AsyncClient(base_url=crowd.url, timeout=120, headers=headers, limits=limits) as client:
        clients = [asyncio.create_task(_ask_on(client, crowd, number, counts)) for number in range(crowd.clients)]
        await asyncio.to_thread(connection.recv)
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    return Answered(**counts)


async def _ask_on(client: httpx.AsyncClient, crowd: Crowd, number: int, counts: dict[str, int]) -> None:
    for body in cycle([*crowd.bodies[number:], *crowd.bodies[:number]]):
        try:
            await time_turn(client, body)
            counts["turns"] += 1
        except AnswerRefusedError:
            counts["refused"] += 1
            await asyncio.sleep(_PAUSE_SECONDS)
