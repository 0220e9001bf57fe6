"""Where the checkpoint that ships with the project lies, and what it can be asked at once."""

from importlib.resources import files
from pathlib import Path

from antiphon.errors import CheckpointError


def shipped_checkpoint() -> Path:
    """In a wheel beside the library, in a working copy at the repository's root."""
    library = Path(str(files("antiphon")))
    for directory in (library / "models" / "nano", library.parent / "models" / "nano"):
        if (directory / "config.json").exists():
            return directory
    raise CheckpointError("The checkpoint nano did not come with this installation. Name one with --checkpoint.")


def shipped_question() -> Path:
    """A question asked aloud, to which nano knows the answer."""
    question = shipped_checkpoint() / "examples" / "question.wav"
    if not question.exists():
        raise CheckpointError(f"Expected the example question {question}; it is missing. Ask something of your own.")
    return question
