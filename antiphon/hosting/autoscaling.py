"""The policies of `antiphon.scaling` as Ray Serve calls them: its controller loads `StagePolicy` by its path."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from antiphon.scaling.records import plan_line, window_line
from antiphon.scaling.scaler import Plan, Scaler, told
from antiphon.scaling.window import Decision, Window

_LOG = logging.getLogger(__name__)

# What every replica records, beside the signals of its stage.
CALLS: Final = "calls"
# Serve asks ten times a second; its replicas record once. The more often is decided, the more chance asks for.
_DECIDE_EVERY_SECONDS: Final = 2.0
# Serve keeps what a replica recorded last for as long as it runs. One that has recorded nothing for so long is silent;
# its clock is that of its host, which may be some seconds behind.
_SILENT_SECONDS: Final = 10.0


class Moment(Protocol):
    """The part of Ray Serve's TimeStampedValue that is read here."""

    @property
    def timestamp(self) -> float:
        """Of time.time() on the replica's host."""
        ...


class Recorded(Protocol):
    """The part of Ray Serve's AutoscalingContext that is read here."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]] | None: ...

    @property
    def raw_metrics(self) -> Mapping[str, Mapping[object, Sequence[Moment]]] | None:
        """What was aggregated."""
        ...

    @property
    def total_num_requests(self) -> float:
        """That Serve's proxies and handles have passed on and that are not answered."""
        ...

    @property
    def target_num_replicas(self) -> int: ...

    @property
    def running_replicas(self) -> Sequence[object]: ...

    @property
    def current_time(self) -> float | None: ...


class StagePolicy:
    """Serve applies no delays of its own to what this decides."""

    def __init__(self, plan: Mapping[str, object], *, counts_requests: bool, windows: Mapping[str, object]) -> None:
        """counts_requests: Serve knows the calls, the replicas record none. windows: of a WindowsFile."""
        self.plan = Plan.model_validate(plan)
        self._scaler = Scaler(self.plan)
        self._counts_requests = counts_requests
        self._file = WindowsFile(**windows) if windows else None  # type: ignore[arg-type]  # written by placement()
        self._decided_seconds = float("-inf")
        self._decision = Decision(0, "")

    def __call__(self, recorded: Recorded) -> tuple[int, dict[str, str]]:
        now = recorded.current_time if recorded.current_time is not None else time.time()
        if now - self._decided_seconds >= _DECIDE_EVERY_SECONDS:
            self._decided_seconds = now
            self._decide(recorded, now)
        return self._decision.replicas, {"reason": self._decision.reason}

    def _decide(self, recorded: Recorded, now: float) -> None:
        running = len(recorded.running_replicas)
        replicas = self._requests(recorded, running) if self._counts_requests else _by_replica(recorded, now)
        signals = told(self.plan, replicas)
        window = Window(now, recorded.target_num_replicas, running, signals)
        self._decision = self._scaler.decide(window)
        if self._file is not None:
            self._file.write(plan_line(self.plan), window_line(window, self._decision))

    def _requests(self, recorded: Recorded, running: int) -> list[dict[str, float]]:
        return [{CALLS: recorded.total_num_requests / running}] * running if running else []


class WindowsFile:
    """Windows and decisions for `antiphon scaling`, in at most two files; the older one ends in `.before`."""

    def __init__(self, path: str, megabytes: float) -> None:
        self._path, self._most_bytes = Path(path), megabytes * 1e6
        self._has_begun, self._is_failing = False, False

    def write(self, plan: str, window: str) -> None:
        """The plan begins each file; each controller begins one of its own. Without room or folder windows are left
        out, which is logged once: Serve's loop, in which this runs, goes on for all applications."""
        try:
            self._write(plan, window)
        except OSError as error:
            if not self._is_failing:
                _LOG.warning("The windows of scaling are not written to %s for now: %s", self._path, error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self, plan: str, window: str) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        is_new = not self._has_begun or not 0 < size <= self._most_bytes
        if is_new and size:
            os.replace(self._path, self._path.with_name(self._path.name + ".before"))
            size = 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{plan}\n{window}\n" if is_new else f"{window}\n")
        except OSError:
            with suppress(OSError):  # half a line would spoil the file
                os.truncate(self._path, size)
            raise
        self._has_begun = True


def _by_replica(recorded: Recorded, now: float) -> list[dict[str, float]]:
    """Signals by name, a mapping for each replica that runs and has recorded some lately."""
    moments, running = recorded.raw_metrics or {}, set(recorded.running_replicas)
    replicas: defaultdict[object, dict[str, float]] = defaultdict(dict)
    for name, values in (recorded.aggregated_metrics or {}).items():
        for replica, value in values.items():
            latest = max((each.timestamp for each in moments.get(name, {}).get(replica, ())), default=float("-inf"))
            if replica in running and latest > now - _SILENT_SECONDS:
                replicas[replica][name] = value
    return [replicas[replica] for replica in sorted(replicas, key=str)]
