"""The spoken answer as a wav file that can be played from its first piece on, while it is still being written."""

import os
import wave
from pathlib import Path
from types import TracebackType

from services.command_line.answer_stream import BYTES_PER_SAMPLE, SAMPLES_PER_SECOND, SoundPiece


class AnswerFile:
    """Made with the first piece: an answer without sound leaves no file. Without a path the sound is dropped."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: wave.Wave_write | None = None

    def __enter__(self) -> "AnswerFile":
        """Raises OSError at once when the file could not be made later."""
        if self._path is not None and not os.access(self._path.absolute().parent, os.W_OK):
            raise PermissionError(f"Cannot write {self._path}: its folder does not exist or is not writable.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, piece: SoundPiece) -> None:
        if self._path is None:
            return
        if self._file is None:
            self._file = _opened(self._path)
        # Corrects the length in the header each time.
        self._file.writeframes(piece.samples)


def _opened(path: Path) -> wave.Wave_write:
    file = wave.open(str(path), "wb")  # noqa: SIM115 - AnswerFile closes it
    file.setnchannels(1)
    file.setsampwidth(BYTES_PER_SAMPLE)
    file.setframerate(SAMPLES_PER_SECOND)
    return file
