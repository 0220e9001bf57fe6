"""A replica that does not answer hides no other from those who ask for all, on a real Ray Serve."""

import dataclasses
import os
import time
from functools import partial
from pathlib import Path

import pytest

from antiphon.hosting import fakes
from antiphon.hosting.free_port import free_port
from antiphon.hosting.ray_cluster import RayHost, deployed
from antiphon.hosting.ray_serve import Scale, StageArguments, Tunables, ray_directory, stage_application
from antiphon.hosting.service import HostedService, ServiceLoad

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def _service(folder: Path) -> HostedService:
    """Whichever replica made its mark first stands still for as long as it is told to."""
    (folder / str(os.getpid())).touch()

    def load() -> ServiceLoad:
        told = folder / "stand still"
        while told.exists() and told.read_text() == str(os.getpid()):
            time.sleep(0.05)
        return ServiceLoad()

    return dataclasses.replace(fakes.hosted_one("codec"), load=load)


async def test_one_that_is_silent_is_left_out_and_the_others_are_known(nano: Path, tmp_path: Path) -> None:
    arguments = StageArguments(
        checkpoint=nano,
        scale=Scale(min_replicas=2, max_replicas=2, cpus=0.1),
        tunables=Tunables(drain_seconds=0.1),
    )
    applications = {"codec": stage_application(partial(_service, tmp_path), arguments)}
    async with deployed(applications, "codec", RayHost(http_port=free_port("127.0.0.1"), cpus=4)):
        directory = ray_directory()
        both = set(await directory.addresses("codec"))
        assert len(both) == 2
        told = tmp_path / "stand still"
        told.write_text(os.listdir(tmp_path)[0])
        try:
            heard = {report.address for report in await directory.reports("codec")}
        finally:
            told.unlink()
        assert len(heard) == 1
        assert heard < both
