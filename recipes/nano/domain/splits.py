"""What training never sees. Held out by content: the same sums and sentences on every machine and in every run.

A question with a key (a sum, a comparison, a count, a phrase) is held out where `Question.held_out` says so: six keys
in a hundred. Facts and small talk have no keys; only their wording, voice and drawing are new in the held-out split.
The Talker has a rule of its own, by sentence: `held_out_of_speech`.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal
from zlib import crc32

from .questions import MAKERS, Kind, Question

Name = Literal["training", "held out"]


@dataclass(frozen=True)
class Split:
    """`kept_back`: the kinds of which training leaves out the held-out keys; of the others it sees all."""

    name: Name
    kept_back: frozenset[Kind]

    def takes(self, question: Question) -> bool:
        if question.key is None:
            return True
        if self.name == "held out":
            return question.held_out
        return not (question.held_out and question.kind in self.kept_back)

    def question(self, roll: Random) -> Question:
        """One of this split, in the proportions of the domain."""
        while True:
            maker = roll.choices([maker for maker, _ in MAKERS], [weight for _, weight in MAKERS])[0]
            if self.takes(question := maker(roll)):
                return question


def held_out_of_speech(text: str) -> bool:
    """One sentence in a hundred: neither codec nor Talker learns from it, in any voice."""
    return crc32(f"va{text}".encode()) % 100 == 0
