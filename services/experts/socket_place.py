"""Where a shard's Unix socket lies: in a folder that nobody but its owner can enter, which all his shards share."""

import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from antiphon.errors import InvalidInput

# The system's bound on the path of a socket, with its ending zero.
_MOST_PATH_BYTES: Final = 107
# A younger socket may be one on which nobody listens yet.
_LEFT_SECONDS: Final = 60.0


def socket_place(folder: Path | None, shard_id: str) -> Path:
    """A path where nothing is yet. What killed shards have left beside it is removed. Raises InvalidInput for a folder
    that others can enter."""
    chosen = folder or Path(tempfile.gettempdir()) / f"antiphon-experts-{os.getuid()}"
    chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = chosen.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidInput(
            f"ANTIPHON_EXPERTS_SOCKET_FOLDER: expected a folder of this user that nobody else can enter (mode 700); "
            f"{chosen} is not. Name another one."
        )
    path = chosen / f"{shard_id}.sock"
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise InvalidInput(f"ANTIPHON_EXPERTS_SOCKET_FOLDER: {path} is longer than {_MOST_PATH_BYTES} bytes.")
    for other in chosen.glob("*.sock"):
        if _is_left(other):
            other.unlink(missing_ok=True)
    return path


def _is_left(path: Path) -> bool:
    """Whether its shard ended without removing it."""
    try:
        if time.time() - path.lstat().st_mtime < _LEFT_SECONDS:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.settimeout(0)
            asking.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:  # it has just gone, or is busy
        return False
    return False
