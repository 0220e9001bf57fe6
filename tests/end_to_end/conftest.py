"""Platforms with the tiny checkpoint and with nano, and the inputs of the reference."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conversations import user
from tests.end_to_end.platform import Platform
from tests.reference.reference_inputs import ReferenceInputs
from tests.reference.transformers_reference import TransformersReference


@pytest.fixture(scope="session")
def tiny_inputs(tiny_checkpoint: Path) -> ReferenceInputs:
    return ReferenceInputs(tiny_checkpoint)


@pytest.fixture(scope="session")
def nano_inputs(nano: Path) -> ReferenceInputs:
    return ReferenceInputs(nano)


@pytest.fixture(scope="package")
def tiny_platform(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tiny_checkpoint, tmp_path_factory.mktemp("tiny_platform"), max_frames=40) as platform:
        yield platform


@pytest.fixture(scope="package")
def tiny_long_platform(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as environment:
        # The tiny model speaks for ever; elsewhere that is cut.
        environment.setenv("ANTIPHON_TALKER_LEAST_FRAMES", "320")
        with Platform(tiny_checkpoint, tmp_path_factory.mktemp("tiny_long"), max_frames=320) as platform:
            yield platform


@pytest.fixture(scope="package")
def tiny_ending_platform(
    tiny_checkpoint: Path,
    tiny_reference: TransformersReference,
    tiny_inputs: ReferenceInputs,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """The same weights, but ids that they often write count as the end of the turn."""
    written = tiny_reference.generate(tiny_inputs.build([user("Please say what you see.")]), max_frames=1).text_ids
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    end_ids = [config["im_end_token_id"], *written[6:12]]
    directory = tmp_path_factory.mktemp("tiny_ending") / tiny_checkpoint.name
    shutil.copytree(tiny_checkpoint, directory)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": end_ids}))
    with Platform(directory, directory.parent, max_frames=40, end_ids=end_ids) as platform:
        yield platform


@pytest.fixture(scope="package")
def nano_platform(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(nano, tmp_path_factory.mktemp("nano_platform"), max_frames=150) as platform:
        yield platform
