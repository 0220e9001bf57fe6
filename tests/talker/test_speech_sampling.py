"""How speech is sampled when the request does not say."""

import json
from pathlib import Path
from typing import Any

import pytest

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import CheckpointError
from services.talker.speech_sampling import FIRST_CODE, GREEDY, RESIDUAL_CODES, checkpoint_sampling, speech_sampling


def written(directory: Path, settings: Any) -> Path:
    (directory / "generation_config.json").write_text(json.dumps(settings))
    return directory


def test_without_a_word_speech_is_sampled_as_transformers_does(tmp_path: Path) -> None:
    assert checkpoint_sampling(tmp_path) == checkpoint_sampling(written(tmp_path, {"eos_token_id": 1})) == FIRST_CODE


def test_nano_asks_for_its_own_temperature(nano: Path) -> None:
    expected = SamplingParameters(temperature=0.3, top_k=50, top_p=1.0, repetition_penalty=1.0)
    assert checkpoint_sampling(nano) == expected


def test_a_checkpoint_may_ask_for_greedy_speech(tmp_path: Path) -> None:
    assert checkpoint_sampling(written(tmp_path, {"talker_do_sample": False})).temperature == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"talker_temperature": "hot"},
        {"talker_top_p": 0},
        {"talker_top_k": -1},
        {"talker_temperature": None},
        {"talker_repetition_penalty": 0},
        [],
    ],
)
def test_settings_that_cannot_be_sampled_with_are_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(CheckpointError, match=r"generation_config\.json: expected"):
        checkpoint_sampling(written(tmp_path, settings))


def test_residual_codes_follow_the_first_unless_the_request_says() -> None:
    own = SamplingParameters(temperature=0.5, top_k=3)
    assert speech_sampling(FIRST_CODE, None, None).residual_codes == RESIDUAL_CODES
    assert speech_sampling(FIRST_CODE, GREEDY, None).residual_codes == GREEDY
    assert speech_sampling(GREEDY, own, None).residual_codes == RESIDUAL_CODES
    assert speech_sampling(FIRST_CODE, GREEDY, own).residual_codes == own
