"""Where the checkpoint that ships with the project lies."""

from importlib.resources import files
from pathlib import Path

from antiphon.errors import CheckpointError


def default_checkpoint() -> Path:
    """In a wheel inside the library, in a working copy at the repository's root."""
    library = Path(str(files("antiphon")))
    for directory in (library / "models" / "nano", library.parent / "models" / "nano"):
        if (directory / "config.json").exists():
            return directory
    raise CheckpointError("The checkpoint nano did not come with this installation. Name one with --checkpoint.")
