"""The Talker's sequences know their listeners."""

import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.engine.decoder import Decoder
from antiphon.engine.sequence import Sequence
from antiphon.wire.generation import PromptNumbers
from services.talker.config import TalkerSettings
from services.talker.engine import Script, TalkerEngine
from services.talker.request import ASSISTANT_ROWS


async def test_a_sequence_knows_until_when_its_frames_play(
    talker_settings: TalkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Sequence[Any]] = []
    leave = Decoder._leave

    def watched(decoder: Decoder[Any, Any], sequence: Sequence[Any]) -> None:
        left.append(sequence)
        leave(decoder, sequence)

    engine = TalkerEngine(talker_settings)
    await engine.start()
    monkeypatch.setattr(Decoder, "_leave", watched)
    rows = 1 + ASSISTANT_ROWS
    prompt = PromptNumbers(np.zeros(1, np.int64), np.zeros((3, rows), np.float32), next_position=float(rows))
    began = time.perf_counter()
    script = Script(prompt, [0] * 3, next(iter(engine.talker_config.speaker_ids)), max_frames=12)
    async with aclosing(engine.speak(script)) as speech:
        for token_id in (5, 6, 7):
            speech.add_token(token_id, is_last=token_id == 7)
        frames = [frame async for frame in speech]
    await engine.decoder.close()
    sequence = left[0]
    assert frames
    # The frames play one after the other, 1920 samples each at 24 kHz, the first when it came.
    first_output = sequence.clock.first_output
    assert first_output is not None
    assert began < first_output
    assert sequence.plays_until >= first_output + len(frames) * 1920 / 24_000 - 1e-9
    assert sequence.plays_until <= time.perf_counter() + len(frames) * 1920 / 24_000


@pytest.fixture
def talker_settings(tiny_checkpoint: Path) -> TalkerSettings:
    return TalkerSettings(checkpoint=tiny_checkpoint)
