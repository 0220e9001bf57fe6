"""Encodes what nano says, shard by shard, for the Talker to learn."""

from pathlib import Path

import torch
from rich.progress import track

from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.speech.store import read_shard, shards
from recipes.nano.talker.codes import Coded, write_codes

from .encode import SpeechCoder, encode


def encode_answers(folder: WorkFolder) -> None:
    """Only what is not encoded yet, or by another codec; raises RecipeError where the codec is missing."""
    if not folder.codec.exists():
        raise RecipeError(f"{folder.codec} is missing: run the stage `codec`, or `shipped`, first.")
    spoken = shards(folder.answers)
    for stale in set(shards(folder.codes)) - {folder.codes / shard.name for shard in spoken}:
        stale.unlink()
    waiting = [shard for shard in spoken if not _up_to_date(folder.codes / shard.name, shard, folder.codec)]
    if not waiting:
        return
    coder = SpeechCoder.load(folder.codec, "cuda" if torch.cuda.is_available() else "cpu")
    for shard in track(waiting, "codes"):
        write_codes(folder.codes / shard.name, coded(coder, shard))


def coded(coder: SpeechCoder, shard: Path) -> list[Coded]:
    utterances = read_shard(shard)
    codes = encode(coder, [utterance.samples for utterance in utterances])
    return [Coded(one.text, one.voice, its) for one, its in zip(utterances, codes, strict=True)]


def _up_to_date(codes: Path, *sources: Path) -> bool:
    return codes.exists() and all(codes.stat().st_mtime >= source.stat().st_mtime for source in sources)
