"""A turn that another gateway has begun goes on: all of its text is told, only the sound that its listener lacks."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from antiphon.sessions.progress import Progress
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.course import TurnCourse
from services.gateway.turns.request import SpeechDelta, TurnEnd, TurnEvent
from tests.gateway.conftest import Fakes
from tests.gateway.turns import a_watch, asked, kinds, spoken_ids, text_of


@dataclass
class Noted:
    parts: list[Progress] = field(default_factory=list)

    def record(self, token_ids: tuple[int, ...] = (), frames: NDArray[np.int16] | None = None) -> None:
        ids = np.asarray(token_ids, np.int32)
        self.parts.append(Progress(ids) if frames is None else Progress(ids, frames))

    @property
    def progress(self) -> Progress:
        return Progress.joined(self.parts)


async def conduct(conductor: Conductor, course: TurnCourse, *, stop: tuple[str, ...] = ()) -> list[TurnEvent]:
    async with conductor.open_turn(asked(media=(b"x",), stop=stop), a_watch(), course) as events:
        return [event async for event in events]


def sound_of(events: list[TurnEvent]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *(e.samples for e in events if isinstance(e, SpeechDelta))])


async def test_what_a_turn_writes_and_speaks_is_noted_once(conductor: Conductor, fakes: Fakes) -> None:
    noted = Noted()
    events = await conduct(conductor, TurnCourse(log=noted))
    assert tuple(noted.progress.token_ids) == fakes.thinker.token_ids
    assert isinstance(events[-1], TurnEnd)
    assert len(noted.progress.frames) == events[-1].audio_tokens


@pytest.mark.parametrize("ids", [0, 1, 3, 6, 99])
@pytest.mark.parametrize(("frames", "samples"), [(0, 0), (2, 0), (2, 2500), (4, 2 * 1920 - 555), (4, 9000)])
async def test_from_any_place_the_rest_is_what_it_would_have_been(
    conductor: Conductor, fakes: Fakes, ids: int, frames: int, samples: int
) -> None:
    noted = Noted()
    whole = await conduct(conductor, TurnCourse(log=noted))
    known = Progress(noted.progress.token_ids[:ids], noted.progress.frames[:frames])
    for fake in fakes.all:
        fake.behaviour.received.clear()
    later = Noted()
    rest = await conduct(conductor, TurnCourse(known, samples, later))
    assert text_of(rest) == text_of(whole)
    np.testing.assert_array_equal(sound_of(rest), sound_of(whole)[samples:])
    assert spoken_ids(fakes) == list(fakes.thinker.token_ids[:-1])
    assert kinds(fakes.talker).count("hidden_rows") == 1
    assert Progress.joined([known, later.progress]) == noted.progress
    assert isinstance(rest[-1], TurnEnd)
    assert isinstance(whole[-1], TurnEnd)
    assert (rest[-1].text_tokens, rest[-1].audio_tokens) == (whole[-1].text_tokens, whole[-1].audio_tokens)
    assert rest[-1].finish_reason == whole[-1].finish_reason


async def test_a_stop_among_what_is_known_ends_the_answer(conductor: Conductor, fakes: Fakes) -> None:
    noted = Noted()
    whole = await conduct(conductor, TurnCourse(log=noted), stop=("black",))
    rest = await conduct(conductor, TurnCourse(noted.progress), stop=("black",))
    assert text_of(rest) == text_of(whole) == "the cat is "
    assert kinds(fakes.codec)[-1] == "end"
    assert fakes.open_calls == 0
