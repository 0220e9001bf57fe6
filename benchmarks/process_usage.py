"""What a process has used: CPU time of all its threads, and the memory it holds, as the kernel tells (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

# Of `stat`, after the name in brackets, whose fields are counted from the third.
_USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 11, 12, 21


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_seconds: float
    resident_bytes: int

    @classmethod
    def of(cls, process_id: int) -> "Usage":
        """In steps of a tick, which is 10 ms."""
        told = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        ticks = int(told[_USER_TICKS]) + int(told[_SYSTEM_TICKS])
        return cls(ticks / os.sysconf("SC_CLK_TCK"), int(told[_RESIDENT_PAGES]) * os.sysconf("SC_PAGESIZE"))
