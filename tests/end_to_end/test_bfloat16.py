"""The types of a GPU on a CPU: every stage computes, sends and reads bfloat16, by the same code as float32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conversations import film, picture, sound, user
from tests.end_to_end.platform import Platform

STAGES = ("ENCODERS", "THINKER", "TALKER", "CODEC")
EVERYTHING = [user(sound(1.3), picture(64, 32), film(4, seconds_of_sound=1.1), "what is it")]


@pytest.fixture(scope="module")
def bfloat16_platform(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as environment:
        for stage in STAGES:
            environment.setenv(f"ANTIPHON_{stage}_DTYPE", "bfloat16")
        with Platform(nano, tmp_path_factory.mktemp("bfloat16"), max_frames=40) as platform:
            yield platform


def test_a_turn_in_bfloat16_goes_through_every_stage(bfloat16_platform: Platform, nano_platform: Platform) -> None:
    """Rounding may change single codes, but not what nano is sure of."""
    turn = bfloat16_platform.speak(EVERYTHING, max_completion_tokens=24)
    assert turn.text_ids == nano_platform.speak(EVERYTHING, max_completion_tokens=24).text_ids
    assert turn.wave.shape == (1920 * len(turn.codes) - 555,)
    assert np.isfinite(turn.wave).all()
    assert 0.01 < np.abs(turn.wave).max() <= 1
    bfloat16_platform.wait_until_idle()
