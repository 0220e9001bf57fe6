"""Processes that decode one video each; one always stands ready, so that nobody waits for its start."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from antiphon.errors import InternalError, TooLarge, UnreadableMedia
from services.encoders import video_messages
from services.encoders.video_messages import HEADER, Kind, VideoJob

_PROGRAM: Final = "services.encoders.video_decoder"
# The decoder needs to find its libraries, and nothing else of what this process knows.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
_POLL_SECONDS: Final = 0.1
_READ_BYTES: Final = 1 << 20
_START_SECONDS: Final = 60.0
# Beyond the pixels of one frame; sound comes in smaller blocks.
_MESSAGE_ROOM_BYTES: Final = 1 << 20

# Called while waiting; raises when the wait is over for another reason.
CheckWait = Callable[[], None]


class VideoProcesses:
    """For any thread. `close` ends the process that stands ready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._lock:
            self._spare = self._spare or _started()

    def close(self) -> None:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            _end(spare)

    @contextmanager
    def decoding(self, job: VideoJob, data: bytes, check_wait: CheckWait) -> Iterator[Iterator[tuple[Kind, bytes]]]:
        """What the decoder says, up to its end. Raises UnreadableMedia when the file brought it down; leaving the block
        ends it, wherever it is."""
        with self._lock:
            process, self._spare = self._spare or _started(), None
        try:
            yield _messages(process, job, data, check_wait)
        finally:
            _end(process)
            self.start()


def _messages(
    process: subprocess.Popen[bytes], job: VideoJob, data: bytes, check_wait: CheckWait
) -> Iterator[tuple[Kind, bytes]]:
    output = _Pipe(process, check_wait)
    if output.message(_MESSAGE_ROOM_BYTES) != (Kind.READY, b""):
        raise InternalError("The video decoder did not start.")
    try:
        if process.stdin is not None:
            video_messages.write_job(process.stdin, job, data)
    except BrokenPipeError:
        raise _fell() from None
    while True:
        message = output.message(3 * job.most_frame_pixels + _MESSAGE_ROOM_BYTES)
        if message is None:
            raise _fell()
        yield message
        if message[0] in (Kind.END, Kind.REFUSAL):
            return


class _Pipe:
    """The decoder's output, message by message."""

    def __init__(self, process: subprocess.Popen[bytes], check_wait: CheckWait) -> None:
        if process.stdout is None:
            raise InternalError("The video decoder has no output.")
        self._file, self._check_wait, self._bytes = process.stdout.fileno(), check_wait, bytearray()

    def message(self, most_bytes: int) -> tuple[Kind, bytes] | None:
        """None at the end of the output."""
        self._check_wait()
        header = self._take(HEADER.size)
        if header is None:
            return None
        kind, length = HEADER.unpack(header)
        if length > most_bytes:
            raise TooLarge("The video unfolds to more than is accepted. Cut it or shrink it.")
        payload = self._take(length)
        return None if payload is None else (Kind(kind), payload)

    def _take(self, count: int) -> bytes | None:
        while len(self._bytes) < count:
            ready, _, _ = select.select([self._file], [], [], _POLL_SECONDS)
            if not ready:
                self._check_wait()
                continue
            got = os.read(self._file, _READ_BYTES)
            if not got:
                return None
            self._bytes += got
        taken = bytes(memoryview(self._bytes)[:count])
        del self._bytes[:count]
        return taken


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 our own program
        [sys.executable, "-P", "-m", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        try:
            if stream is not None:
                stream.close()
        except BrokenPipeError:
            pass  # it had not read all of its input
    process.wait(_START_SECONDS)


def _fell() -> UnreadableMedia:
    return video_messages.unreadable("its bytes brought the decoder down")
