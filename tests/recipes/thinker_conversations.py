"""Conversations for the Thinker's tests: drawn as the recipe draws them, spoken ones with speech recorded before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile
import torch

from antiphon.prompt.positions import PositionRules
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain.conversations import Conversation, Recording, Text, Turn, corpus
from recipes.nano.domain.settings import CorpusSettings, Counts
from recipes.nano.speech.store import Utterance, shard_path, write_shard
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.preparation import Preparation
from recipes.nano.thinker.settings import ThinkerSettings
from tests.accuracy.domain import held_out
from tests.accuracy.domain.items import Item, Speech

NONE = Counts(**dict.fromkeys(Counts.model_fields, 0))
RULES = PositionRules(position_id_per_seconds=13, merge_size=2)
CPU = torch.device("cpu")


def drawn(**counts: int) -> tuple[Conversation, ...]:
    """Held-out ones; the recordings of those that are spoken exist in name only."""
    wanted = NONE.model_copy(update=counts)
    return corpus(CorpusSettings(training=NONE, held_out=wanted)).held_out


class Recorded:
    """Spoken conversations, and the folder in which the speech stage would have left their recordings."""

    def __init__(self, folder: Path) -> None:
        self.questions = folder
        self._utterances: list[Utterance] = []
        self.spoken = tuple(self._conversation("spoken", item) for item in held_out.spoken_items()[:6])
        self.memory = tuple(self._conversation("spoken_memory", item) for item in held_out.memory_items()[:3])
        self.others = tuple(self._others())
        write_shard(shard_path(folder, 0), self._utterances[:4])
        write_shard(shard_path(folder, 1), self._utterances[4:])

    def _conversation(self, of_class: str, item: Item) -> Conversation:
        turns = tuple(Turn((self._recording(turn.parts[0]),), turn.answer) for turn in item.turns)
        return Conversation(of_class, item.kind, item.system, turns)

    def _others(self) -> Iterator[Conversation]:
        """Of classes whose conversations bring a picture and speech, a text and speech, or speech only sometimes."""
        (picture, *_), *_ = (conversation.turns[0].parts for conversation in drawn(image=1))
        speech = self.spoken[0].turns[0].parts[0]
        yield Conversation("image_and_speech", "image", None, (Turn((picture, speech), "I see a red circle."),))
        yield Conversation("transcription", "transcription", None, (Turn((speech, Text("What did I say?")), "Hello."),))
        thought = "Two plus two is four."
        yield replace(self.spoken[1], of_class="thinking", thought=thought)
        yield replace(drawn(typed=1)[0], of_class="thinking", thought=thought)

    def _recording(self, speech: Speech) -> Recording:
        samples, _ = soundfile.read(speech.file, dtype="int16")
        self._utterances.append(Utterance(speech.words, speech.voice, samples))
        return Recording(len(self._utterances) - 1, speech.words, speech.voice)


def settings(**changes: object) -> ThinkerSettings:
    return ThinkerSettings.model_validate(
        {"training": {"steps": 1, "learning_rate": 1e-3}, "batch": {"typed": 4}} | changes
    )


def prepared(
    conversations: Sequence[Conversation], questions: Path, checkpoint: Path, wanted: ThinkerSettings | None = None
) -> Examples:
    tokenizer = PromptTokenizer.from_checkpoint(checkpoint)
    preparation = Preparation(tokenizer, RULES, wanted or settings(), CPU)
    return preparation.examples(conversations, questions, varied_pace=False)
