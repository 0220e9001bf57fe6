"""Records how plain transformers answers every held-out item: `python -m tests.accuracy.record`, a few minutes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from recipes.nano.evaluation.by_transformers import Transformers

from .asked import question
from .domain.held_out import all_items
from .domain.items import DATA

ANSWERS = DATA / "answers.json"
NANO = Path(__file__).resolve().parents[2] / "models" / "nano"


@dataclass(frozen=True)
class Recorded:
    """One line of answers.json; `transformers` is what plain greedy generate answers."""

    asked: str
    expected: str
    transformers: str


def load() -> dict[str, Recorded]:
    return {name: Recorded(**line) for name, line in json.loads(ANSWERS.read_text()).items()}


def main() -> None:
    torch.set_num_threads(1)
    transformers = Transformers(NANO)
    answers = {item.name: transformers.write(question(item)) for item in all_items()}
    lines = {item.name: asdict(Recorded(item.asked, item.expected, answers[item.name])) for item in all_items()}
    ANSWERS.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
