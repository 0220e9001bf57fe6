"""What the accuracy tests share: the recogniser, what was measured, and every written answer, asked for once."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from recipes.nano.evaluation.by_antiphon import written_answers
from recipes.nano.evaluation.recogniser import MEASURES, Recogniser
from recipes.nano.evaluation.report import Report
from tests.accuracy.asked import question
from tests.accuracy.domain.held_out import all_items


@pytest.fixture(scope="session", params=MEASURES)
def recogniser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser(tmp_path_factory.mktemp("recogniser"), request.param)


@pytest.fixture(scope="session")
def measured(nano: Path) -> Report:
    """What the recipe's evaluation found: the one place that says how good nano is."""
    return Report.read(nano / "report.json")


@pytest.fixture(scope="session")
def answers(platform_url: str) -> Mapping[str, str]:
    return written_answers(platform_url, [question(item) for item in all_items()])
