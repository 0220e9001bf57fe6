"""What is asked of a conversation itself: nano's name from the system prompt, and what it was told before."""

from random import Random

from .language import in_words
from .pictures import COLOURS
from .vocabulary import NAMES

SYSTEMS = [None] * 6 + ["You are a helpful voice assistant.", "You are Antiphon nano, a helpful voice assistant."]
ONE_WORD = "Answer in one word."

Exchange = tuple[str, str]  # what is asked or told, and the reply


def own_name(roll: Random) -> tuple[str, str, str]:
    """A system prompt that names the model, a question for the name, and the answer."""
    name = roll.choice(NAMES)
    asked = roll.choice(["who are you", "what is your name", "tell me your name"])
    return f"Your name is {name}.", asked, f"My name is {name}."


def memory(roll: Random) -> tuple[Exchange, Exchange]:
    """Something told with its reply, and what is asked of it later."""
    return roll.choices([_told_name, _told_colour, _told_number], [50, 30, 20])[0](roll)


def _told_name(roll: Random) -> tuple[Exchange, Exchange]:
    name = roll.choice(NAMES)
    told = roll.choice(["my name is {}", "hello, my name is {}", "i am {}"]).format(name)
    asked = roll.choice(["what is my name", "do you know my name", "who am i"])
    return (told, f"Nice to meet you, {name}."), (asked, f"Your name is {name}.")


def _told_colour(roll: Random) -> tuple[Exchange, Exchange]:
    colour = roll.choice(list(COLOURS))
    asked = roll.choice(["what is my favorite color", "which color do i like"])
    return (f"my favorite color is {colour}", f"I like {colour} too."), (asked, f"Your favorite color is {colour}.")


def _told_number(roll: Random) -> tuple[Exchange, Exchange]:
    number = in_words(roll.randint(0, 40))
    told = roll.choice(["remember the number {}", "my number is {}"]).format(number)
    asked = roll.choice(["what is my number", "which number did i say"])
    return (told, f"I will remember {number}."), (asked, f"Your number is {number}.")
