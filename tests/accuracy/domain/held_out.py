"""The held-out items: which are asked, in the proportions in which nano was measured."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain, count, cycle, islice
from random import Random

from recipes.nano.domain import films, pictures, sounds
from recipes.nano.domain.dialogues import ONE_WORD, SYSTEMS, memory, own_name
from recipes.nano.domain.language import dice, sentence_case, typed
from recipes.nano.domain.questions import Question, arithmetic, held_out_phrase, held_out_question
from recipes.nano.domain.voices import VOICES, VOICES_TO_LEARN_FROM

from .items import Film, Item, Picture, Reading, Sound, Speech, Text, Turn
from .measured import measured_image_items

ITEMS = 60
# Pictures weigh next to nothing, and nano errs on them most: more of them tell more.
PICTURES = 200
CONVERSATIONS = 20
READINGS = 24


def _distinct(purpose: str, make: Callable[[Random, str], Item], size: int = ITEMS) -> tuple[Item, ...]:
    """The first `size` items that differ in what is asked."""
    roll, chosen, seen = dice(purpose), list[Item](), set[str]()
    while len(chosen) < size:
        item = make(roll, f"{purpose}-{len(chosen):02}")
        if item.asked.lower() not in seen:
            seen.add(item.asked.lower())
            chosen.append(item)
    return tuple(chosen)


@cache
def typed_items() -> tuple[Item, ...]:
    return _distinct("typed", _typed_item)


@cache
def spoken_items() -> tuple[Item, ...]:
    return _distinct("spoken", _spoken_item)


@cache
def transcription_items() -> tuple[Item, ...]:
    """The recordings of the spoken items, to be written down instead of answered."""
    roll = dice("transcription")
    return tuple(_transcription(roll, item) for item in spoken_items())


@cache
def memory_items() -> tuple[Item, ...]:
    return _distinct("memory", _spoken_memory, CONVERSATIONS)


@cache
def image_items() -> tuple[Item, ...]:
    return _distinct("image", _image_item, PICTURES)


@cache
def video_items() -> tuple[Item, ...]:
    return _distinct("video", _video_item)


@cache
def sound_items() -> tuple[Item, ...]:
    """Two sounds of one kind still differ in pitch, length and loudness."""
    roll = dice("sound")
    return tuple(_sound_item(roll, f"sound-{index:02}") for index in range(ITEMS))


@cache
def readings() -> tuple[Reading, ...]:
    """Other answers in the same proportions, read by the voices that nano's own were learnt from."""
    answers = islice(_to_speak(dice("reading"), "reading"), READINGS)
    return tuple(Reading(item.name, item.expected, voice) for item, voice in zip(answers, cycle(VOICES_TO_LEARN_FROM)))


def all_items() -> Iterator[Item]:
    yield from chain(typed_items(), spoken_items(), transcription_items(), memory_items())
    yield from chain(image_items(), measured_image_items(), video_items(), sound_items())


def _typed_item(roll: Random, name: str) -> Item:
    makers = [_typed_plain, _typed_name, _typed_one_word, _typed_memory, _typed_second]
    return roll.choices(makers, [64, 8, 8, 14, 6])[0](roll, name)


def _typed_plain(roll: Random, name: str) -> Item:
    question = held_out_question(roll)
    if question.kind == "arithmetic" and roll.random() < 0.4:
        question = arithmetic(roll, digits=True)
    return Item(name, question.kind, roll.choice(SYSTEMS), (_typed_turn(roll, question.asked, question.answer),))


def _typed_name(roll: Random, name: str) -> Item:
    system, asked, answer = own_name(roll)
    return Item(name, "own name", system, (_typed_turn(roll, asked, answer),))


def _typed_one_word(roll: Random, name: str) -> Item:
    question, short = _with_short_answer(roll)
    return Item(name, "one word", ONE_WORD, (_typed_turn(roll, question.asked, short),))


def _typed_memory(roll: Random, name: str) -> Item:
    (told, reply), (asked, answer) = memory(roll)
    turns = [_typed_turn(roll, told, reply)]
    if roll.random() < 0.3:
        between = held_out_question(roll)
        turns.append(_typed_turn(roll, between.asked, between.answer))
    return Item(name, "memory", roll.choice(SYSTEMS), (*turns, _typed_turn(roll, asked, answer)))


def _typed_second(roll: Random, name: str) -> Item:
    first, second = held_out_question(roll), held_out_question(roll)
    turns = tuple(_typed_turn(roll, question.asked, question.answer) for question in (first, second))
    return Item(name, second.kind, roll.choice(SYSTEMS), turns)


def _spoken_item(roll: Random, name: str) -> Item:
    manner = roll.random()
    if manner < 0.04:
        system, asked, answer = own_name(roll)
        return Item(name, "own name", system, (_spoken_turn(roll, name, asked, answer),))
    if manner < 0.09:
        question, short = _with_short_answer(roll)
        return Item(name, "one word", ONE_WORD, (_spoken_turn(roll, name, question.asked, short),))
    question = held_out_question(roll)
    turn = _spoken_turn(roll, name, question.asked, question.answer)
    return Item(name, question.kind, roll.choice(SYSTEMS), (turn,))


def _transcription(roll: Random, item: Item) -> Item:
    (recording,) = (part for part in item.media if isinstance(part, Speech))
    asked = roll.choice(["Transcribe the audio.", "Write down what you hear.", "What did I say?"])
    answer = sentence_case(recording.words.replace(":", "")) + "."
    name = item.name.replace("spoken", "transcription")
    return Item(name, "transcription", None, (Turn((recording, Text(asked)), answer),))


def _spoken_memory(roll: Random, name: str) -> Item:
    exchanges = memory(roll)
    turns = (_spoken_turn(roll, f"{name}-{n}", asked, answer) for n, (asked, answer) in zip(count(), exchanges))
    return Item(name, "memory", roll.choice(SYSTEMS), tuple(turns))


def _image_item(roll: Random, name: str) -> Item:
    scene = pictures.scene(roll)
    asked, answer = pictures.ask_about(roll, scene)
    turn = Turn((Picture(name, scene), Text(typed(roll, asked))), answer)
    return Item(name, "image", roll.choice(SYSTEMS), (turn,))


def _video_item(roll: Random, name: str) -> Item:
    motion = films.motion(roll)
    asked, answer = films.ask_about(roll, motion)
    turn = Turn((Film(name, motion), Text(typed(roll, asked))), answer)
    return Item(name, "video", roll.choice(SYSTEMS), (turn,))


def _sound_item(roll: Random, name: str) -> Item:
    kind = roll.choice(list(sounds.CAPTIONS))
    parts = (Sound(name, kind), Text(typed(roll, roll.choice(sounds.QUESTIONS))))
    ordered = parts if roll.random() < 0.7 else parts[::-1]
    return Item(name, "sound", roll.choice(SYSTEMS), (Turn(ordered, sounds.CAPTIONS[kind]),))


def _to_speak(roll: Random, purpose: str) -> Iterator[Item]:
    answers = set[str]()
    for index in count():
        item = None
        while item is None or item.expected in answers:
            item = _spoken_aloud(roll, f"{purpose}-{index:02}", phrase=index % 4 == 3)
        answers.add(item.expected)
        yield item


def _spoken_aloud(roll: Random, name: str, *, phrase: bool) -> Item:
    if not phrase:
        item = _typed_item(roll, name)
        return item if item.kind != "phrase" else _spoken_aloud(roll, name, phrase=False)
    question = held_out_phrase(roll)
    return Item(name, "phrase", roll.choice(SYSTEMS), (_typed_turn(roll, question.asked, question.answer),))


def _typed_turn(roll: Random, asked: str, answer: str) -> Turn:
    return Turn((Text(typed(roll, asked)),), answer)


def _spoken_turn(roll: Random, name: str, asked: str, answer: str) -> Turn:
    return Turn((Speech(name, asked, roll.choice(VOICES)),), answer)


def _with_short_answer(roll: Random) -> tuple[Question, str]:
    while True:
        question = held_out_question(roll)
        if question.short is not None:
            return question, question.short
