"""Questions that are asked of many, again and again, where one who dawdles keeps nobody waiting for the others."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class OpenQuestions(Generic[Key, Answer]):
    """Of each key at most one is open at a time."""

    def __init__(self, name: str, on_late: Callable[[], None]) -> None:
        """on_late: called when an answer comes for which `within` did not wait; the next one gives it."""
        self._name, self._on_late = name, on_late
        self._open: dict[Key, asyncio.Task[Answer]] = {}

    async def within(
        self, questions: Mapping[Key, Callable[[], Coroutine[Any, Any, Answer]]], seconds: float
    ) -> dict[Key, Answer]:
        """What came in so long, also to questions of before; those without an answer stay open. A question that fails
        raises here."""
        for key, ask in questions.items():
            if key not in self._open:
                self._open[key] = asyncio.create_task(ask(), name=f"{self._name} {key}")
        for task in self._open.values():
            task.remove_done_callback(self._late)
        if self._open:
            await asyncio.wait(self._open.values(), timeout=seconds)
        for task in self._open.values():
            if not task.done():
                task.add_done_callback(self._late)
        return self._answered()

    async def close(self) -> list[Answer]:
        """Waits for those that are still open."""
        tasks, self._open = list(self._open.values()), {}
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _late(self, _: "asyncio.Task[Answer]") -> None:
        self._on_late()

    def _answered(self) -> dict[Key, Answer]:
        done = {key: task for key, task in self._open.items() if task.done()}
        for key in done:
            del self._open[key]
        return {key: task.result() for key, task in done.items()}
