"""Who dawdles keeps nobody waiting, is asked once at a time, and is heard when he answers."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from services.thinker.open_questions import OpenQuestions

Asked = dict[str, Callable[[], Coroutine[Any, Any, str]]]


class Friends:
    """Each answers after so many seconds."""

    def __init__(self, **seconds: float) -> None:
        self._seconds = seconds
        self.asked: list[str] = []
        self.late = 0
        self.questions = OpenQuestions[str, str]("asking", self._note)

    def all(self) -> Asked:
        return {name: partial(self._answer, name) for name in self._seconds}

    def _note(self) -> None:
        self.late += 1

    async def _answer(self, name: str) -> str:
        self.asked.append(name)
        await asyncio.sleep(self._seconds[name])
        return name.upper()


async def test_what_came_in_time_is_given_and_the_rest_later() -> None:
    friends = Friends(quick=0.0, slow=0.1)
    assert await friends.questions.within(friends.all(), 0.03) == {"quick": "QUICK"}
    assert await friends.questions.within({}, 0.0) == {}
    await asyncio.sleep(0.15)
    assert friends.late == 1
    assert await friends.questions.within({}, 0.0) == {"slow": "SLOW"}


async def test_nobody_is_asked_again_while_he_thinks() -> None:
    friends = Friends(quick=0.0, slow=0.2)
    for _ in range(3):
        await friends.questions.within(friends.all(), 0.03)
    assert friends.asked.count("slow") == 1
    assert friends.asked.count("quick") == 3
    assert await friends.questions.close() == ["SLOW"]


async def test_an_answer_that_is_waited_for_is_not_late() -> None:
    friends = Friends(slow=0.1)
    assert await friends.questions.within(friends.all(), 0.02) == {}
    assert await friends.questions.within(friends.all(), 1.0) == {"slow": "SLOW"}
    await asyncio.sleep(0)
    assert friends.late == 0


async def test_those_that_fail_are_left_out_in_the_end() -> None:
    async def fails() -> str:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    questions = OpenQuestions[str, str]("asking", lambda: None)
    await questions.within({"bad": fails}, 0.0)
    assert await questions.close() == []
