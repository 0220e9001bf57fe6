"""Fixtures that every test may use: checkpoints and the reference that they are compared with."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.redis_server import RedisServer
    from tests.reference.transformers_reference import TransformersReference

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Without a GPU its kernels are interpreted. transformers imports Triton, which wants to know before."""
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    for item in marked if not torch.cuda.is_available() else []:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests share few cores; one thread each is both faster and repeatable."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nano() -> Path:
    """The small checkpoint that ships with the repository."""
    return REPOSITORY / "models" / "nano"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, nano: Path) -> Path:
    """A random checkpoint with every part, sharded as the real one is."""
    from tests.reference.tiny_checkpoint import build_tiny_checkpoint

    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), 0, nano)


@pytest.fixture(scope="session")
def tiny_reference(tiny_checkpoint: Path) -> "TransformersReference":
    from tests.reference.transformers_reference import TransformersReference

    return TransformersReference(tiny_checkpoint)


@pytest.fixture(scope="session")
def nano_reference(nano: Path) -> "TransformersReference":
    from tests.reference.transformers_reference import TransformersReference

    return TransformersReference(nano)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RedisServer]":
    """A real Redis that nobody stops; what tests leave in it, they leave to tests after them."""
    from tests.redis_server import running_redis

    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the sequences that lost their pages, as they lose them."""
    from antiphon.engine.scheduler import Scheduler

    numbers: list[int] = []
    preempt = Scheduler._preempt

    def note(scheduler: Any, sequence: Any) -> None:
        numbers.append(sequence.number)
        preempt(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", note)
    return numbers


@pytest.fixture(scope="session")
def platform_url(nano: Path) -> Iterator[str]:
    """The API of an Antiphon that serves nano in this process, as `antiphon serve` does; ends in /v1."""
    from services.embedded import embedded_platform
    from tests.event_loop_thread import EventLoopThread

    with pytest.MonkeyPatch.context() as environment:
        # A machine that is busy with other tests is late, and would send clients away.
        environment.setenv("ANTIPHON_GATEWAY_SHEDS_LOAD", "false")
        with EventLoopThread(lambda: embedded_platform(nano)) as thread:
            yield f"{thread.opened}/v1"


# Not for the session: a process can be part of one Ray at a time.
@pytest.fixture(scope="module")
def ray_platform_url(nano: Path) -> Iterator[str]:
    """The same API where every service is a Ray Serve deployment, as `antiphon serve --on ray` does it."""
    from services.on_ray import RaySettings, ray_platform
    from tests.event_loop_thread import EventLoopThread

    with EventLoopThread(lambda: ray_platform(RaySettings(nano, port=0))) as thread:
        yield f"{thread.opened}/v1"
