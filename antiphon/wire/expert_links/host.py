"""What this host calls itself: processes that are told the same may share memory."""

from pathlib import Path
from typing import Final
from uuid import uuid4

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def this_host() -> str:
    """The kernel's own name for this run of it; containers share it, and a link that cannot be opened after all goes
    over gRPC. Where there is none, one that nobody else has."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return uuid4().hex
