"""A platform without weights answers voice turns as long as they are bound to be, also with the real model's ids."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.command_line.bench.plan import ModelSize
from services.command_line.bench.random_checkpoint import write_random_checkpoint
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.bench.turn_client import Workload, run_turns
from services.embedded import embedded_platform
from tests.event_loop_thread import EventLoopThread

FRAMES, TOKENS = 9, 5


def narrow(directory: Path) -> None:
    """The real size's ids, words and parts in widths that a test can compute."""
    file = directory / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    thinker, talker, wave = config["thinker_config"], config["talker_config"], config["code2wav_config"]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    thinker["audio_config"] |= {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    thinker["audio_config"] |= {"output_dim": 64, "downsample_hidden_size": 8}
    thinker["vision_config"] |= {"depth": 4, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    thinker["vision_config"] |= {"out_hidden_size": 64, "deepstack_visual_indexes": [0, 1, 2]}
    thinker["text_config"] |= {**heads, "hidden_size": 64, "num_hidden_layers": 5, "num_experts": 16}
    thinker["text_config"] |= {"moe_intermediate_size": 32, "intermediate_size": 32}
    talker |= {"thinker_hidden_size": 64, "accept_hidden_layer": 4}
    talker["text_config"] |= {**heads, "hidden_size": 48, "num_hidden_layers": 3, "num_experts": 16}
    talker["text_config"] |= {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 32}
    talker["text_config"] |= {"intermediate_size": 64}
    talker["code_predictor_config"] |= {**heads, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 64}
    wave |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "decoder_dim": 64}
    wave |= {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 8}
    file.write_text(json.dumps(config))


@pytest.fixture(params=["nano", "real ids"])
def base_url(
    request: pytest.FixtureRequest, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    size = ModelSize.NANO if request.param == "nano" else ModelSize.REAL
    checkpoint = write_random_checkpoint(tmp_path, size, 0, nano)
    if size is ModelSize.REAL:
        narrow(checkpoint)
    monkeypatch.setenv("ANTIPHON_GATEWAY_MAX_SPEECH_FRAMES", str(FRAMES))
    with EventLoopThread(lambda: embedded_platform(checkpoint)) as thread:
        yield thread.opened


@pytest.mark.slow
def test_every_turn_is_as_long_as_it_may_be(base_url: str, nano: Path, tmp_path: Path) -> None:
    questions = SpokenQuestions([nano / "examples" / "question.wav"], tmp_path, seconds=1.0)
    workload = Workload(questions, most_answer_tokens=TOKENS)
    run, failures = asyncio.run(run_turns(base_url, workload, concurrency=2, turns=3))
    assert failures == []
    assert run.turns == 3
    assert run.frames_per_second / run.tokens_per_second == pytest.approx(FRAMES / TOKENS)
    assert run.cached_tokens == 0
