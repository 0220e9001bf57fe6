"""What the accuracy tests share: the recogniser, and every written answer, asked for once."""

from collections.abc import Mapping

import pytest

from recipes.nano.evaluation.recogniser import Recogniser
from tests.accuracy.asking import written_answers
from tests.accuracy.domain.held_out import all_items


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser(tmp_path_factory.mktemp("recogniser"))


@pytest.fixture(scope="session")
def answers(platform_url: str) -> Mapping[str, str]:
    return written_answers(platform_url, all_items())
