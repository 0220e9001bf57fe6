"""Speech is synthesised as the codec and the Thinker expect it, once, and kept whole."""

from itertools import islice
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from recipes.nano.domain.sentences import lines_to_learn
from recipes.nano.errors import RecipeError
from recipes.nano.speech import parallel
from recipes.nano.speech.settings import SpeechSettings
from recipes.nano.speech.store import Utterance, read_lines, read_shard, shards, write_shard
from recipes.nano.speech.synthesis import ANSWERS_RATE_HZ, ANSWERS_RMS, answer, question

SETTINGS = SpeechSettings(answers=7, utterances_per_shard=3, processes=2)
LINES = list(islice(lines_to_learn(domain_share=0.5, longest_phrase=4), 7))

synthesised = pytest.mark.skipif(not (which("flite") and which("espeak-ng")), reason="needs flite and espeak-ng")


def beep(line: tuple[int, tuple[str, str]]) -> Utterance:
    """Stands in for the synthesiser."""
    number, (text, voice) = line
    return Utterance(text, voice, np.full(number + 1, number, np.int16))


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    spoken = [beep(line) for line in enumerate(LINES)]
    write_shard(tmp_path / "00000.npz", spoken)
    back = read_shard(tmp_path / "00000.npz")
    assert [(one.text, one.voice, one.samples.tolist()) for one in back] == [
        (one.text, one.voice, one.samples.tolist()) for one in spoken
    ]


def test_lines_are_spoken_in_order_and_once(tmp_path: Path) -> None:
    parallel.synthesise(tmp_path, LINES, beep, SETTINGS)
    before = [(path, path.stat().st_mtime_ns) for path in shards(tmp_path)]
    parallel.synthesise(tmp_path, LINES, beep, SETTINGS)
    assert [(path, path.stat().st_mtime_ns) for path in shards(tmp_path)] == before
    assert [line for path in shards(tmp_path) for line in read_lines(path)] == LINES


def test_an_interrupted_synthesis_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    parallel.synthesise(tmp_path, LINES, beep, SETTINGS)
    kept, lost, _ = shards(tmp_path)
    written = kept.stat().st_mtime_ns
    lost.unlink()
    (tmp_path / ".00001.npz.1").write_bytes(b"half a shard")
    parallel.synthesise(tmp_path, LINES, beep, SETTINGS)
    assert [line for path in shards(tmp_path) for line in read_lines(path)] == LINES
    assert kept.stat().st_mtime_ns == written


def test_other_lines_replace_those_of_another_run(tmp_path: Path) -> None:
    parallel.synthesise(tmp_path, LINES, beep, SETTINGS)
    parallel.synthesise(tmp_path, LINES[2:5], beep, SETTINGS)
    assert [line for path in shards(tmp_path) for line in read_lines(path)] == LINES[2:5]


def test_without_the_synthesiser_the_reader_learns_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match="flite is not installed: apt-get install flite espeak-ng"):
        parallel.synthesise(tmp_path, LINES, answer, SETTINGS)


@synthesised
def test_answers_are_equally_loud_and_begin_at_once() -> None:
    for voice in ("slt", "rms", "awb"):
        wave = answer((0, ("Twenty two is bigger than five.", voice))).samples / 32767
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(ANSWERS_RMS, rel=0.01)
        assert np.abs(wave).max() <= 0.95
        assert np.abs(wave[: ANSWERS_RATE_HZ // 10]).max() > 0.006
        assert 1.0 < len(wave) / ANSWERS_RATE_HZ < 4.0


@synthesised
def test_a_question_sounds_the_same_every_time_and_different_under_another_number() -> None:
    once, again, other = (question((number, ("how are you", "british"))).samples for number in (3, 3, 4))
    assert np.array_equal(once, again)
    assert not np.array_equal(once[:2000], other[:2000])
    assert len(once) % 160 == 0
