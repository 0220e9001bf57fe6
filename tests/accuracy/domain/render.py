"""Renders the media of the held-out items into tests/accuracy/data: `python -m tests.accuracy.domain.render`.

Needs Debian's flite 2.2 and espeak-ng 1.51; everything is drawn from the media's own names, so a run repeats itself.
"""

import subprocess
from io import BytesIO
from random import Random

import soundfile

from recipes.nano.domain import films, pictures, sounds, voices
from recipes.nano.domain.language import dice

from .held_out import all_items, readings
from .items import Film, Medium, Picture, Reading, Sound, Speech


def main() -> None:
    shown = {medium.name: medium for item in all_items() for medium in item.media}
    for medium in (*shown.values(), *readings()):
        medium.file.parent.mkdir(parents=True, exist_ok=True)
        medium.file.write_bytes(rendered(medium))


def rendered(medium: Medium | Reading) -> bytes:
    roll = dice(medium.name)
    match medium:
        case Speech(_, words, voice):
            return _as_flac(voices.record(words, voice, roll))
        case Reading(_, words, voice):
            return _as_flac(voices.read_aloud(words, voice))
        case Sound(_, kind):
            return _as_flac(sounds.synthesise(kind, roll.getrandbits(32)))
        case Picture(_, scene, _):
            out = BytesIO()
            pictures.draw(_numbers(medium), scene).save(out, "PNG", optimize=True)
            return out.getvalue()
        case Film(_, motion):
            return films.as_gif(films.draw(roll, motion))


def _numbers(picture: Picture) -> Random:
    return dice(picture.name) if picture.seed is None else Random(picture.seed)  # noqa: S311 - nothing here is secret


def _as_flac(samples: voices.Integers) -> bytes:
    out = BytesIO()
    soundfile.write(out, samples, voices.RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return out.getvalue()


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as missing:
        raise SystemExit(f"{missing.filename} is not installed: apt-get install flite espeak-ng") from missing
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"{failed.cmd}: {failed.stderr.decode()}") from failed
