"""The sounds of conversations: recordings from the speech stage's shards, other sounds synthesised."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from recipes.nano.domain import sounds
from recipes.nano.domain.conversations import Recording, Sound
from recipes.nano.domain.voices import Integers
from recipes.nano.errors import RecipeError
from recipes.nano.model.log_mel import SAMPLES_PER_FRAME
from recipes.nano.speech.store import Utterance, read_shard, shards
from recipes.nano.thinker.media import Audible


def heard_sounds(wanted: Iterable[Audible], questions: Path) -> dict[Audible, Integers]:
    """Samples at 16 kHz, in whole mel frames: a sound is then the same alone and beside others.

    Raises RecipeError where the shards in `questions` lack a recording, or hold another one in its place.
    """
    wanted = list(wanted)
    recordings = {one.number: one for one in wanted if isinstance(one, Recording)}
    heard: dict[Audible, Integers] = {}
    heard |= {one: sounds.synthesise(one.kind, one.seed) for one in wanted if isinstance(one, Sound)}
    heard |= _recorded(recordings, questions)
    return {one: samples[: len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME] for one, samples in heard.items()}


def _recorded(wanted: Mapping[int, Recording], questions: Path) -> dict[Audible, Integers]:
    if not wanted:
        return {}
    found: dict[Audible, Integers] = {}
    for number, (path, utterance) in enumerate(_utterances(questions)):
        if number in wanted:
            _require_same(wanted[number], utterance, path)
            found[wanted[number]] = utterance.samples
    if len(found) < len(wanted):
        raise RecipeError(
            f"{questions}: expected {len(wanted)} recordings of what users say, found {len(found)}. "
            "Let the speech stage finish first."
        )
    return found


def _utterances(questions: Path) -> Iterator[tuple[Path, Utterance]]:
    for path in shards(questions):
        yield from ((path, utterance) for utterance in read_shard(path))


def _require_same(recording: Recording, utterance: Utterance, path: Path) -> None:
    if (utterance.text, utterance.voice) != (recording.words, recording.voice):
        raise RecipeError(
            f"{path}: expected recording {recording.number} to be {recording.words!r} by {recording.voice}; it is "
            f"{utterance.text!r} by {utterance.voice}. Run the speech stage for this configuration."
        )
