"""The stages of a run, in order."""

from typing import Literal, get_args

Stage = Literal["speech", "shipped", "tokenizer", "codec", "codes", "thinker", "talker", "assemble", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)

WHAT_IT_DOES: dict[Stage, str] = {
    "speech": "Synthesise what users and nano say.",
    "shipped": "Take tokenizer, codec and Thinker of the shipped checkpoint instead of training them.",
    "tokenizer": "Learn the vocabulary; write tokenizer and processor.",
    "codec": "Train speech to codes and back.",
    "codes": "Encode what nano says.",
    "thinker": "Train what hears, sees and answers.",
    "talker": "Train what turns answers into codes.",
    "assemble": "Write the Hugging Face checkpoint.",
    "evaluate": "Measure the checkpoint by itself and through Antiphon.",
}
