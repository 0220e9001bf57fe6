"""Any stage is killed in the middle of a turn, and the client hears what he would have heard, every sample once."""

import io
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from services.hosted import HostedStage
from tests.end_to_end.conversations import sound
from tests.recovery.replicas import Heard, Turns, question, replicas_of, turns_over

pytestmark = pytest.mark.slow

# It goes on soon, on a busy machine, too; how soon on another is measured by benchmarks/chaos.py.
LONGEST_SILENCE_SECONDS = 5.0
# Answered with five seconds of speech.
WORDS = "Count to ten."
# The answers of a stage after which it goes: the first, and one in the middle.
MOMENTS: dict[HostedStage, tuple[int, int]] = {
    "encoders": (1, 2),
    "thinker": (1, 12),
    "talker": (1, 30),
    "codec": (1, 4),
}


@pytest.mark.parametrize("stage", MOMENTS)
async def test_whoever_is_killed_or_stopped_the_turn_goes_on(stage: HostedStage, nano: Path, tmp_path: Path) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, sound(1.5).samples, 16_000, format="WAV")
    media = wav.getvalue() if stage == "encoders" else b""
    first, later = MOMENTS[stage]
    with replicas_of(stage, 3) as replicas:
        async with turns_over(replicas, nano, tmp_path) as turns:
            whole = await turns.hear(question(WORDS, sound=media))
            assert len(whole.pcm) > 12_000
            killed = await turns.hear(question(WORDS, sound=media), at(first, turns, signal.SIGKILL))
            tell(stage, f"killed at answer {first}", killed, whole)
            stopped = await turns.hear(question(WORDS, sound=media), at(later, turns, signal.SIGSTOP))
            tell(stage, f"stopped at answer {later}", stopped, whole)
            for process in replicas.processes.values():
                process.resume()
            drawn = question(WORDS, sound=media, sampled=True)
            drawn_whole = await turns.hear(drawn)
            drawn_killed = await turns.hear(drawn, at(later, turns, signal.SIGKILL))
            tell(stage, f"killed at answer {later}, drawn", drawn_killed, drawn_whole)


def at(answer: int, turns: Turns, number: signal.Signals) -> Callable[[int], None]:
    def cut(count: int) -> None:
        if count == answer and not gone:
            gone.append(turns.replicas.signal_latest(number))

    gone: list[str] = []
    return cut


def tell(stage: str, what: str, heard: Heard, whole: Heard) -> None:
    assert heard.text == whole.text
    print(  # noqa: T201 - the measure of it
        f"{stage} {what}: silent for {heard.silent_seconds:.2f} s, longest gap {heard.longest_gap_seconds:.2f} s "
        f"(undisturbed {whole.longest_gap_seconds:.2f} s), {len(heard.pcm) / 24_000:.1f} s of sound"
    )
    np.testing.assert_array_equal(heard.pcm, whole.pcm)
    assert heard.silent_seconds <= LONGEST_SILENCE_SECONDS
