"""Records how plain transformers answers every held-out item: `python -m tests.accuracy.record`, a few minutes."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image, ImageSequence

from tests.reference import reference_inputs as reference
from tests.reference.transformers_reference import TransformersReference

from .domain.held_out import all_items
from .domain.items import DATA, Film, Item, Part, Picture, Sound, Speech, Text

ANSWERS = DATA / "answers.json"
NANO = Path(__file__).resolve().parents[2] / "models" / "nano"
MOST_TOKENS = 64


@dataclass(frozen=True)
class Recorded:
    """One line of answers.json; `transformers` is what plain greedy generate answers."""

    asked: str
    expected: str
    transformers: str


def load() -> dict[str, Recorded]:
    return {name: Recorded(**line) for name, line in json.loads(ANSWERS.read_text()).items()}


class Transformers:
    """nano by transformers alone: float32, greedy, text only."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = TransformersReference(checkpoint).model
        self.inputs = reference.ReferenceInputs(checkpoint)

    @torch.no_grad()
    def answer(self, item: Item) -> str:
        inputs = self.inputs.build(list(_messages(item)))
        ids = self.model.generate(
            **inputs,
            return_audio=False,
            thinker_do_sample=False,
            thinker_max_new_tokens=MOST_TOKENS,
            thinker_eos_token_id=self.model.config.im_end_token_id,
        )
        answered = ids[0, inputs["input_ids"].shape[1] :]
        return str(self.inputs.tokenizer.decode(answered, skip_special_tokens=True))


def _messages(item: Item) -> Iterator[reference.ReferenceMessage]:
    if item.system:
        yield reference.ReferenceMessage("system", [item.system])
    for turn in item.turns[:-1]:
        yield reference.ReferenceMessage("user", [_part(part) for part in turn.parts])
        yield reference.ReferenceMessage("assistant", [turn.answer])
    yield reference.ReferenceMessage("user", [_part(part) for part in item.turns[-1].parts])


def _part(part: Part) -> reference.Part:
    match part:
        case Text(text):
            return text
        case Speech() | Sound():
            return reference.Sound(soundfile.read(part.file, dtype="float32")[0])
        case Picture():
            return reference.Picture(np.array(Image.open(part.file)))
        case Film():
            frames = ImageSequence.Iterator(Image.open(part.file))
            return reference.Film(np.stack([np.array(frame.convert("RGB")) for frame in frames]))


def main() -> None:
    torch.set_num_threads(1)
    transformers = Transformers(NANO)
    lines = {item.name: asdict(Recorded(item.asked, item.expected, transformers.answer(item))) for item in all_items()}
    ANSWERS.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
