"""What the Thinker learns from: conversations of every class, drawn from seeds, whose answers are known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Literal, get_args

from . import films, pictures, sounds
from .dialogues import ONE_WORD, SYSTEMS, memory, own_name
from .language import sentence_case, training_dice, typed
from .questions import Question, arithmetic
from .settings import CorpusSettings, Counts
from .splits import Split
from .voices import VOICES

Class = Literal[
    "typed",
    "spoken",
    "transcription",
    "spoken_memory",
    "image",
    "image_and_speech",
    "video",
    "sound",
    "thinking",
]
CLASSES: tuple[Class, ...] = get_args(Class)
QUESTIONS_A_PICTURE = 2  # and a film
TO_TRANSCRIBE = ("Transcribe the audio.", "Write down what you hear.", "What did I say?")
SEEDS = 1 << 30


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Recording:
    """Speech at 16 kHz: the utterance of this number in the work folder's questions."""

    number: int
    words: str
    voice: str


@dataclass(frozen=True)
class Sound:
    """For `sounds.synthesise`."""

    kind: str
    seed: int


@dataclass(frozen=True)
class Picture:
    """For `pictures.draw`, with the numbers of its seed."""

    scene: pictures.Scene
    seed: int


@dataclass(frozen=True)
class Film:
    """For `films.draw`, with the numbers of its seed."""

    motion: films.Motion
    seed: int


Part = Text | Recording | Sound | Picture | Film


@dataclass(frozen=True)
class Turn:
    parts: tuple[Part, ...]
    answer: str


@dataclass(frozen=True)
class Conversation:
    """`kind` is the kind of its last question.

    `thought` is None where thinking is not spoken of, empty where it is switched off, else what nano thinks aloud
    before its last answer.
    """

    of_class: Class
    kind: str
    system: str | None
    turns: tuple[Turn, ...]
    thought: str | None = None


@dataclass(frozen=True)
class Corpus:
    training: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    recordings: tuple[Recording, ...]  # in the order of their numbers


def corpus(settings: CorpusSettings) -> Corpus:
    """Always the same for the same settings; the held-out recordings come first."""
    numbers = count()
    held_out = _conversations(settings.held_out, Split("held out", settings.kept_back), numbers)
    training = _conversations(settings.training, Split("training", settings.kept_back), numbers)
    recordings = {part.number: part for part in _parts(held_out + training) if isinstance(part, Recording)}
    return Corpus(training, held_out, tuple(recordings[number] for number in sorted(recordings)))


def _parts(conversations: tuple[Conversation, ...]) -> Iterator[Part]:
    for conversation in conversations:
        for turn in conversation.turns:
            yield from turn.parts


@dataclass(frozen=True)
class _Source:
    """What the conversations of one class are drawn from; every class has dice of its own."""

    roll: Random
    split: Split
    numbers: Iterator[int]

    def question(self) -> Question:
        return self.split.question(self.roll)

    def question_with_short_answer(self) -> tuple[Question, str]:
        while True:
            question = self.question()
            if question.short is not None:
                return question, question.short

    def sum(self, *, digits: bool) -> Question:
        while True:
            question = arithmetic(self.roll, digits=digits)
            if self.split.takes(question):
                return question

    def system(self) -> str | None:
        return self.roll.choice(SYSTEMS)

    def seed(self) -> int:
        return self.roll.randrange(SEEDS)

    def typed(self, asked: str) -> Text:
        return Text(typed(self.roll, asked))

    def recording(self, words: str) -> Recording:
        return Recording(next(self.numbers), words, self.roll.choice(VOICES))


def _conversations(counts: Counts, split: Split, numbers: Iterator[int]) -> tuple[Conversation, ...]:
    drawn: list[Conversation] = []
    for of_class, size in counts:
        if of_class == "transcription":
            spoken = [conversation for conversation in drawn if conversation.of_class == "spoken"]
            drawn += _transcriptions(training_dice(f"{split.name} transcription"), spoken[:size])
        else:
            source = _Source(training_dice(f"{split.name} {of_class}"), split, numbers)
            drawn += islice(MAKERS[of_class](source), size)
    return tuple(drawn)


def _transcriptions(roll: Random, spoken: list[Conversation]) -> Iterator[Conversation]:
    for conversation in spoken:
        (recording,) = (part for part in conversation.turns[0].parts if isinstance(part, Recording))
        answer = sentence_case(recording.words.replace(":", "")) + "."
        turn = Turn((recording, Text(roll.choice(TO_TRANSCRIBE))), answer)
        yield Conversation("transcription", "transcription", None, (turn,))


def _typed(source: _Source) -> Iterator[Conversation]:
    makers = [_typed_plain, _typed_name, _typed_one_word, _typed_memory, _typed_second]
    while True:
        yield source.roll.choices(makers, [64, 8, 8, 14, 6])[0](source)


def _typed_plain(source: _Source) -> Conversation:
    question = source.question()
    if question.kind == "arithmetic" and source.roll.random() < 0.4:
        question = source.sum(digits=True)
    asked = Turn((source.typed(question.asked),), question.answer)
    thought = "" if source.roll.random() < 0.1 else None
    return Conversation("typed", question.kind, source.system(), (asked,), thought)


def _typed_name(source: _Source) -> Conversation:
    system, asked, answer = own_name(source.roll)
    return Conversation("typed", "own name", system, (Turn((source.typed(asked),), answer),))


def _typed_one_word(source: _Source) -> Conversation:
    question, short = source.question_with_short_answer()
    return Conversation("typed", "one word", ONE_WORD, (Turn((source.typed(question.asked),), short),))


def _typed_memory(source: _Source) -> Conversation:
    told, asked = memory(source.roll)
    exchanges = [told, asked]
    if source.roll.random() < 0.3:
        between = source.question()
        exchanges.insert(1, (between.asked, between.answer))
    turns = tuple(Turn((source.typed(said),), reply) for said, reply in exchanges)
    return Conversation("typed", "memory", source.system(), turns)


def _typed_second(source: _Source) -> Conversation:
    first, second = source.question(), source.question()
    turns = tuple(Turn((source.typed(question.asked),), question.answer) for question in (first, second))
    return Conversation("typed", second.kind, source.system(), turns)


def _spoken(source: _Source) -> Iterator[Conversation]:
    makers = [_spoken_plain, _spoken_name, _spoken_one_word]
    while True:
        yield source.roll.choices(makers, [91, 4, 5])[0](source)


def _spoken_plain(source: _Source) -> Conversation:
    question = source.question()
    asked = Turn((source.recording(question.asked),), question.answer)
    thought = "" if source.roll.random() < 0.05 else None
    return Conversation("spoken", question.kind, source.system(), (asked,), thought)


def _spoken_name(source: _Source) -> Conversation:
    system, asked, answer = own_name(source.roll)
    return Conversation("spoken", "own name", system, (Turn((source.recording(asked),), answer),))


def _spoken_one_word(source: _Source) -> Conversation:
    question, short = source.question_with_short_answer()
    return Conversation("spoken", "one word", ONE_WORD, (Turn((source.recording(question.asked),), short),))


def _spoken_memory(source: _Source) -> Iterator[Conversation]:
    while True:
        turns = tuple(Turn((source.recording(said),), reply) for said, reply in memory(source.roll))
        yield Conversation("spoken_memory", "memory", source.system(), turns)


def _image(source: _Source) -> Iterator[Conversation]:
    while True:
        picture = Picture(pictures.scene(source.roll), source.seed())
        for _ in range(QUESTIONS_A_PICTURE):
            asked, answer = pictures.ask_about(source.roll, picture.scene)
            yield Conversation("image", "image", source.system(), (Turn((picture, source.typed(asked)), answer),))


def _image_and_speech(source: _Source) -> Iterator[Conversation]:
    while True:
        picture = Picture(pictures.scene(source.roll), source.seed())
        asked, answer = pictures.ask_about(source.roll, picture.scene)
        turn = Turn((picture, source.recording(asked)), answer)
        yield Conversation("image_and_speech", "image", source.system(), (turn,))


def _video(source: _Source) -> Iterator[Conversation]:
    while True:
        film = Film(films.motion(source.roll), source.seed())
        for _ in range(QUESTIONS_A_PICTURE):
            asked, answer = films.ask_about(source.roll, film.motion)
            yield Conversation("video", "video", source.system(), (Turn((film, source.typed(asked)), answer),))


def _sound(source: _Source) -> Iterator[Conversation]:
    while True:
        sound = Sound(source.roll.choice(list(sounds.CAPTIONS)), source.seed())
        asked = source.typed(source.roll.choice(sounds.QUESTIONS))
        parts: tuple[Part, ...] = (sound, asked) if source.roll.random() < 0.7 else (asked, sound)
        yield Conversation("sound", "sound", source.system(), (Turn(parts, sounds.CAPTIONS[sound.kind]),))


def _thinking(source: _Source) -> Iterator[Conversation]:
    """Sums: one in five is spoken."""
    while True:
        spoken = source.roll.random() < 0.2
        question = source.sum(digits=not spoken and source.roll.random() < 0.3)
        asked = source.recording(question.asked) if spoken else source.typed(question.asked)
        turn = Turn((asked,), question.answer)
        yield Conversation("thinking", "arithmetic", source.system(), (turn,), question.thought)


MAKERS: dict[str, Callable[[_Source], Iterator[Conversation]]] = {
    "typed": _typed,
    "spoken": _spoken,
    "spoken_memory": _spoken_memory,
    "image": _image,
    "image_and_speech": _image_and_speech,
    "video": _video,
    "sound": _sound,
    "thinking": _thinking,
}
