"""What a shard begins with, where its socket lies, and what it tells of its load."""

import os
import socket
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from antiphon.errors import InvalidInput
from services.experts.config import ExpertsSettings
from services.experts.load import ComputedCall, LoadMeter
from services.experts.socket_place import socket_place
from services.experts.start_set import start_set
from tests.experts.shards import MODEL

WHOLE = replace(MODEL, layers=5, experts=12)


@pytest.mark.parametrize(("shards", "copies"), [(1, 1), (3, 1), (4, 2), (5, 5), (16, 3)])
def test_shards_begin_with_as_many_copies_of_each_expert_as_are_asked_for(shards: int, copies: int) -> None:
    sets = [start_set(f"{number}/{shards}", copies, WHOLE) for number in range(1, shards + 1)]
    counts = Counter(key for held in sets for key in held)
    assert counts == dict.fromkeys(WHOLE.keys, copies)
    assert max(map(len, sets)) - min(map(len, sets)) <= WHOLE.layers * copies


def test_all_and_none_are_what_they_say() -> None:
    assert start_set("all", 1, WHOLE) == WHOLE.keys
    assert start_set("none", 1, WHOLE) == frozenset()


@pytest.mark.parametrize(("holds", "copies"), [("3/2", 1), ("1/2", 3)])
def test_a_shard_that_cannot_be_is_refused(holds: str, copies: int) -> None:
    with pytest.raises(InvalidInput, match="no more copies than shards"):
        start_set(holds, copies, WHOLE)


@pytest.mark.parametrize("holds", ["some", "0/2", "1/0", "1", "-1/2", "1/2/3"])
def test_settings_say_what_they_understand(nano: Path, holds: str) -> None:
    with pytest.raises(ValidationError, match="holds"):
        ExpertsSettings(checkpoint=nano, holds=holds)


@pytest.mark.parametrize("folder", [None, "made/here"])
def test_a_socket_lies_where_only_its_owner_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    path = socket_place(None if folder is None else tmp_path / folder, "me")
    assert path.name == "me.sock"
    assert path.is_relative_to(tmp_path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(own)
    tmp_path.chmod(0o755)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(InvalidInput, match="mode 700"):
            socket_place(folder, "me")


def test_a_folder_whose_path_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="longer than"):
        socket_place(tmp_path / ("x" * 120), "me")


def test_what_killed_shards_left_is_removed(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.sock" for name in ("killed", "starting", "running")}
    sockets = {name: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for name in paths}
    for name, each in sockets.items():
        each.bind(str(paths[name]))
    sockets["running"].listen()
    for name in ("killed", "running"):
        os.utime(paths[name], (0, 0))
    socket_place(tmp_path, "me")
    assert {name for name, path in paths.items() if path.exists()} == {"starting", "running"}
    for each in sockets.values():
        each.close()


def test_a_load_is_that_of_the_latest_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("services.experts.load.time.monotonic", lambda: now)
    meter = LoadMeter()
    assert meter.load(trunks=3).utilisation == 0
    for second in range(10):
        began = now + second
        meter.add(ComputedCall(began - 0.25, began, began + 0.5), pairs=7)
    now += 10
    load = meter.load(trunks=3)
    assert load.utilisation == pytest.approx(0.5)
    assert (load.queued_p95_microseconds, load.computed_p50_microseconds) == (250_000, 500_000)
    assert (load.calls, load.pairs, load.trunks) == (10, 70, 3)
    now += 100
    idle = meter.load(trunks=0)
    assert (idle.utilisation, idle.queued_p95_microseconds, idle.calls) == (0, 0, 10)


def test_a_shard_with_more_calls_than_are_remembered_is_as_busy_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("services.experts.load.time.monotonic", lambda: now)
    meter = LoadMeter()
    for call in range(10_000):
        began = now + call * 0.0004
        meter.add(ComputedCall(began, began, began + 0.0003), pairs=1)
    now += 4.0
    assert meter.load(trunks=1).utilisation == pytest.approx(0.75, rel=0.01)
