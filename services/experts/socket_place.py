"""Where a shard's Unix socket lies: in a folder that nobody but its owner can enter."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from antiphon.errors import InvalidInput

# The system's bound on the path of a socket, with its ending zero.
_MOST_PATH_BYTES: Final = 107


@contextmanager
def socket_place(folder: Path | None, shard_id: str) -> Iterator[Path]:
    """A path where nothing is yet. Raises InvalidInput for a folder that others can enter."""
    if folder is None:
        made = Path(tempfile.mkdtemp(prefix="antiphon-experts-"))
        try:
            yield made / f"{shard_id}.sock"
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidInput(
            f"ANTIPHON_EXPERTS_SOCKET_FOLDER: expected a folder of this user that nobody else can enter (mode 700); "
            f"{folder} is not. Give another one, or none."
        )
    path = folder / f"{shard_id}.sock"
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise InvalidInput(f"ANTIPHON_EXPERTS_SOCKET_FOLDER: {path} is longer than {_MOST_PATH_BYTES} bytes.")
    yield path
