"""Sentences that no voice was taught to speak: answers of the domain in every voice, and phrases to repeat."""

from itertools import cycle
from typing import Final

from recipes.nano.domain.language import dice
from recipes.nano.domain.questions import held_out_phrase
from recipes.nano.domain.sentences import answers_of_the_domain
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation.speech import Kind, Line

# nano's voices, and whom each was learnt from.
VOICES: Final = {"ethan": "rms", "chelsie": "slt", "aiden": "awb"}


def lines_to_speak(sentences: int, seed: int = 0) -> list[Line]:
    """`sentences` different ones: answers of the domain, at most a third, each in every voice; then phrases in turn."""
    answers = domain_answers()[: sentences // 3]
    phrases = fresh_phrases(sentences - len(answers))
    spoken: list[tuple[Kind, str, str]] = [("domain", text, voice) for text in answers for voice in VOICES]
    spoken += [("phrase", text, voice) for text, voice in zip(phrases, cycle(VOICES), strict=False)]
    return [Line(*each, len(spoken) * seed + number) for number, each in enumerate(spoken)]


def domain_answers() -> list[str]:
    """Every one that is held out, always in the same order, which mixes the kinds."""
    answers = [text for text in answers_of_the_domain() if held_out_of_speech(text)]
    dice("answers to speak").shuffle(answers)
    return answers


def fresh_phrases(size: int) -> list[str]:
    """Random words, one to six, that no training hears or says; each once."""
    roll, phrases = dice("phrases to speak"), dict[str, None]()
    while len(phrases) < size:
        phrases[held_out_phrase(roll).answer] = None
    return list(phrases)
