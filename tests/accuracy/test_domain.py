"""The held-out items are always the same ones, held out, and shipped with everything that they show."""

from io import BytesIO

import av
import numpy as np
import soundfile
from PIL import Image, ImageSequence

from recipes.nano.domain import films
from recipes.nano.domain.language import dice
from recipes.nano.evaluation.language_model import sentences_of_the_domain
from recipes.nano.evaluation.sentences import lines_to_speak
from recipes.nano.evaluation.word_errors import words_of
from tests.accuracy import record
from tests.accuracy.domain import held_out
from tests.accuracy.domain.items import DATA, Sound, Speech

LEAST_ITEMS = 50
MOST_BYTES = 6_000_000


def test_the_recording_is_of_these_items() -> None:
    recorded = {name: (line.asked, line.expected) for name, line in record.load().items()}
    assert recorded == {item.name: (item.asked, item.expected) for item in held_out.all_items()}


def test_every_class_has_enough_items() -> None:
    classes = (
        held_out.typed_items,
        held_out.spoken_items,
        held_out.image_items,
        held_out.video_items,
        held_out.sound_items,
    )
    assert all(len(of_class()) >= LEAST_ITEMS for of_class in classes)


def test_all_media_are_shipped_and_small() -> None:
    media = {medium.file for item in held_out.all_items() for medium in item.media}
    media |= {reading.file for reading in held_out.readings()}
    shipped = {file for file in DATA.rglob("*") if file.is_file() and file.parent != DATA}
    assert media == shipped
    assert sum(file.stat().st_size for file in shipped) < MOST_BYTES


def test_recordings_are_16_khz_and_one_channel() -> None:
    recordings = [m for item in held_out.all_items() for m in item.media if isinstance(m, Speech | Sound)]
    for about in (soundfile.info(recording.file) for recording in recordings):
        assert (about.samplerate, about.channels, about.subtype) == (16_000, 1, "PCM_16")


def test_phrases_to_speak_are_unknown_to_the_recogniser() -> None:
    known = set(sentences_of_the_domain())
    phrases = [line.text for line in lines_to_speak(120) if line.kind == "phrase"]
    assert phrases
    assert not [phrase for phrase in phrases if words_of(phrase) in known and len(words_of(phrase)) > 1]


def test_films_lose_nothing_when_encoded() -> None:
    roll = dice("any film")
    drawn = films.draw(roll, films.motion(roll))
    with av.open(BytesIO(films.as_gif(drawn))) as container:
        assert container.streams.video[0].average_rate == 1000 / films.FRAME_MILLISECONDS
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(decoded, [np.array(frame) for frame in drawn])


def test_shipped_films_are_whole() -> None:
    for item in held_out.video_items():
        (film,) = item.media
        with Image.open(film.file) as shown, av.open(film.file) as container:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(shown)]
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(decoded) == films.FRAMES
        assert np.array_equal(decoded, frames)
