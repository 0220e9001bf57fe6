"""Answers while expert shards are killed: how many fail, whether any is another, and what it costs to lack a shard.

python -m benchmarks.expert_chaos            # 100 answers at once over 4 shards, each expert on 2 of them

Each answer is compared with the same one before any shard was killed. Shards are processes of their own, killed without
warning somewhere within the answers and started again a while later; the platform before them is in this process.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Final

import httpx
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from benchmarks.expert_shards import ShardFleet, ShardProcess, shard_fleet

_QUESTIONS: Final = (
    "Count to ten.",
    "What is the capital of France?",
    "What sound does a cow make?",
    "How much is seven plus five?",
    "What colour is the sky?",
    "Hello!",
    "Say red.",
    "What day comes after Monday?",
)
_CHAT: Final = "/v1/chat/completions"
_NO_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=None)
# Shedding and limits are not what is measured here.
_PLATFORM: Final = {
    "ANTIPHON_THINKER_EXPERTS": "remote",
    "ANTIPHON_GATEWAY_SHEDS_LOAD": "false",
    "ANTIPHON_GATEWAY_CONCURRENT_TURNS": "1024",
}


@dataclass(frozen=True)
class Plan:
    answers: int = 400
    at_once: int = 100
    shards: int = 4
    copies: int = 2
    # Between a kill and the next, from when all experts have their copies again.
    least_seconds: float = 0.1
    most_seconds: float = 1.0
    # For which a killed shard stays away.
    down_seconds: float = 1.0
    # In which throughput is taken with all shards and with one fewer, in turn.
    rounds: int = 3
    # Of a round the fastest of so many counts, since other work of the machine slows them at random.
    tries: int = 3


@dataclass(slots=True)
class Tally:
    answers: int = 0
    failed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    kills: int = 0
    # Tokens a second, round by round.
    whole: list[float] = field(default_factory=list)
    one_short: list[float] = field(default_factory=list)

    def report(self) -> str:
        lines = [
            f"{self.answers} answers, {len(self.failed)} failed, {len(self.different)} different; {self.kills} kills."
        ]
        if self.whole:
            ratio = median(short / whole for short, whole in zip(self.one_short, self.whole, strict=True))
            lines.append(
                f"{median(self.whole):.0f} tokens a second with all shards, {median(self.one_short):.0f} with one "
                f"fewer: {(1 - ratio) * 100:.1f} % less."
            )
        return "\n".join([*lines, *self.failed[:10], *self.different[:10]])


@dataclass(slots=True)
class ExpertChaos:
    client: httpx.AsyncClient
    model: str
    fleet: ShardFleet
    plan: Plan
    wholes: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    async def learn(self) -> None:
        """What every question is answered while nobody is killed."""
        self.wholes = [(await self._answer(number))[0] for number in range(len(_QUESTIONS))]

    async def disturb(self) -> None:
        killing = asyncio.create_task(self._kill())
        try:
            await self._answers(self.plan.answers)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        await self._whole_again()

    async def measure(self) -> None:
        for place in range(self.plan.rounds):
            self.tally.whole.append(await self._throughput())
            gone = self.fleet.shards[place % len(self.fleet.shards)]
            gone.kill()
            try:
                await asyncio.sleep(self.plan.down_seconds)
                self.tally.one_short.append(await self._throughput())
            finally:
                gone.start()
                await self._whole_again()

    async def _throughput(self) -> float:
        return max([await self._tokens_a_second() for _ in range(self.plan.tries)])

    async def _tokens_a_second(self) -> float:
        began = time.perf_counter()
        tokens = await self._answers(2 * self.plan.at_once)
        return tokens / (time.perf_counter() - began)

    async def _answers(self, count: int) -> int:
        """Tokens of so many answers, `at_once` of them at any time."""
        numbers, tokens = iter(range(count)), list[int]()

        async def ask() -> None:
            for number in numbers:
                tokens.append(await self._compared(number))

        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.at_once):
                group.create_task(ask())
        return sum(tokens)

    async def _compared(self, number: int) -> int:
        self.tally.answers += 1
        try:
            text, tokens = await self._answer(number)
        except (httpx.HTTPError, RuntimeError) as error:
            self.tally.failed.append(f"answer {number} failed: {type(error).__name__}: {error}")
            return 0
        whole = self.wholes[number % len(_QUESTIONS)]
        if text != whole:
            self.tally.different.append(f"answer {number}: {text!r} instead of {whole!r}")
        return tokens

    async def _answer(self, number: int) -> tuple[str, int]:
        """Its text, token by token, and how many there were. Greedy."""
        question = {"role": "user", "content": _QUESTIONS[number % len(_QUESTIONS)]}
        body = {"model": self.model, "messages": [question], "temperature": 0, "modalities": ["text"]}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 64}
        text, tokens = "", 0
        async with self.client.stream("POST", _CHAT, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise RuntimeError(f"{response.status_code}: {(await response.aread())[:300]!r}")
            async for line in response.aiter_lines():
                if line.startswith("data:") and line[5:].strip() != "[DONE]":
                    chunk = json.loads(line[5:])
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"]["message"])
                    text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                    tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        if not tokens:
            raise RuntimeError("The stream ended before the answer did.")
        return text, tokens

    async def _kill(self) -> None:
        """Any shard, at any moment, while the others have every expert."""
        dice = random.Random(0)  # noqa: S311 - chaos, not secrets
        while True:
            await asyncio.sleep(dice.uniform(self.plan.least_seconds, self.plan.most_seconds))
            gone = dice.choice(self.fleet.shards)
            await self._kill_one(gone)

    async def _kill_one(self, gone: ShardProcess) -> None:
        gone.kill()
        self.tally.kills += 1
        try:
            await asyncio.sleep(self.plan.down_seconds)
        finally:
            gone.start()
        await self._whole_again()

    async def _whole_again(self) -> None:
        await self.fleet.ready()


@asynccontextmanager
async def chaos(plan: Plan) -> AsyncIterator[ExpertChaos]:
    """Over a platform that has just been started."""
    from services.embedded import EmbeddedSettings, running_platform

    checkpoint = default_checkpoint()
    with shard_fleet(checkpoint, plan.shards, copies=plan.copies) as fleet:
        await fleet.ready()
        with _variables({**_PLATFORM, "ANTIPHON_DIRECTORY_EXPERTS": ",".join(fleet.addresses)}):
            async with (
                running_platform(EmbeddedSettings(checkpoint)) as platform,
                httpx.AsyncClient(base_url=platform.base_url, timeout=600, limits=_NO_LIMITS) as client,
            ):
                model = (await client.get("/v1/models")).json()["data"][0]["id"]
                subject = ExpertChaos(client, model, fleet, plan)
                await subject.learn()
                yield subject


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Of this process, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


async def _run(plan: Plan) -> Tally:
    async with chaos(plan) as subject:
        await subject.measure()
        await subject.disturb()
        return subject.tally


def main(
    answers: Annotated[int, typer.Option(min=1, help="While shards are killed.")] = Plan.answers,
    at_once: Annotated[int, typer.Option(min=1)] = Plan.at_once,
    shards: Annotated[int, typer.Option(min=1)] = Plan.shards,
    copies: Annotated[int, typer.Option(min=1, help="Of each expert.")] = Plan.copies,
    down_seconds: Annotated[float, typer.Option(help="For which a killed shard stays away.")] = Plan.down_seconds,
    rounds: Annotated[int, typer.Option(help="Of throughput with all shards and one fewer.")] = Plan.rounds,
) -> None:
    plan = Plan(answers, at_once, shards, copies, down_seconds=down_seconds, rounds=rounds)
    tally = asyncio.run(_run(plan))
    print(tally.report())
    raise typer.Exit(bool(tally.failed or tally.different))


if __name__ == "__main__":
    typer.run(main)
