"""The loop of every training: it ends when it should, and goes on as if it had never been interrupted."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from recipes.nano.training import trainer
from recipes.nano.training.schedule import learning_rate, share_done
from recipes.nano.training.settings import TrainingSettings
from recipes.nano.training.step import AVERAGE_OVER_STEPS, Loss, Optimiser, Step
from recipes.nano.training.trainer import Kind, Trainer

SECONDS_A_STEP = 2.0


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"learning_rate": 0.1, "warm_up_steps": 4} | changes)


class Lesson:
    """Draws a row and learns to give its sum; counts how often it was asked, and can be interrupted."""

    def __init__(self, *, lasts: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.asked, self.lasts = 0, lasts

    def __call__(self) -> Loss:
        if self.asked == self.lasts:
            raise KeyboardInterrupt
        self.asked += 1
        rows = torch.rand(16, 4)
        error = (self.model(rows)[:, 0] - rows.sum(dim=1)).square().mean()
        return Loss(error, torch.stack((error, torch.tensor(float(self.asked)))))

    def validate(self) -> Mapping[str, float]:
        """Draws, too."""
        with torch.no_grad():
            return {"error": float(self.model(torch.rand(64, 4)).mean())}

    def trainer(self, state: Path, how: TrainingSettings) -> Trainer:
        """Batches of two kinds, one of them drawn thrice as often."""
        kinds = [Kind(self, lambda: 1.0), Kind(self, lambda: 3.0)]
        return Trainer("lesson", {"model": self.model}, kinds, ("error", "asked"), how, state)

    def learn(self, state: Path, how: TrainingSettings) -> None:
        self.trainer(state, how).run(self.validate)


class Clock:
    """Shows later and later times, a step between two."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        self.seconds += SECONDS_A_STEP
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # The trainer's alone: other threads look at the time, too.
    monkeypatch.setattr(trainer, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Trainer, "_say", lambda _, text: lines.append(text))
    return lines


def test_it_ends_after_its_steps(tmp_path: Path) -> None:
    lesson = Lesson()
    lesson.learn(tmp_path / "lesson.pt", settings(steps=7))
    assert lesson.asked == 7


@pytest.mark.usefixtures("clock")
def test_it_ends_after_its_minutes(tmp_path: Path) -> None:
    lesson = Lesson()
    lesson.learn(tmp_path / "lesson.pt", settings(minutes=0.5))
    assert lesson.asked == 30 / SECONDS_A_STEP


@pytest.mark.usefixtures("clock")
def test_whichever_comes_first_ends_it(tmp_path: Path) -> None:
    for steps, minutes, expected in ((5, 0.5, 5), (100, 0.2, 6)):
        lesson = Lesson()
        lesson.learn(tmp_path / f"{steps}.pt", settings(steps=steps, minutes=minutes))
        assert lesson.asked == expected


@pytest.mark.usefixtures("clock")
def test_time_before_an_interruption_counts_and_time_after_it_does_not(tmp_path: Path) -> None:
    state, how = tmp_path / "lesson.pt", settings(minutes=0.5, save_every_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        Lesson(lasts=9).learn(state, how)
    lesson = Lesson()
    lesson.learn(state, how)
    assert lesson.asked == 30 / SECONDS_A_STEP - 9


def test_an_end_must_be_given() -> None:
    with pytest.raises(ValidationError, match="give `minutes`, `steps` or both"):
        settings()


def test_the_share_that_is_done_is_that_of_the_budget_that_is_used_up_first() -> None:
    both = settings(steps=100, minutes=10)
    assert share_done(both, steps=20, seconds=60) == pytest.approx(0.2)
    assert share_done(both, steps=20, seconds=300) == pytest.approx(0.5)
    assert share_done(both, steps=500, seconds=0) == 1
    assert share_done(settings(minutes=10), steps=10_000, seconds=150) == pytest.approx(0.25)


def test_the_rate_warms_up_and_falls_by_half_a_cosine() -> None:
    how = settings(steps=100, learning_rate=0.5, warm_up_steps=10, last_rate_share=0.1)
    rates = [learning_rate(how, steps, steps / 100) for steps in range(101)]
    assert rates[0] == pytest.approx(0.5 * 1 / 10)
    assert rates[4] == pytest.approx(0.5 * 5 / 10 * (0.1 + 0.9 * (1 + math.cos(math.pi * 0.04)) / 2))
    assert rates[50] == pytest.approx(0.5 * (0.1 + 0.9 / 2))
    assert rates[100] == pytest.approx(0.5 * 0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_every_step_is_taken_at_the_rate_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    set_rate = Optimiser.set_rate

    def noted(optimiser: Optimiser, rate: float) -> None:
        set_rate(optimiser, rate)
        rates.extend(float(group["lr"]) for group in optimiser.adam.param_groups)

    monkeypatch.setattr(Optimiser, "set_rate", noted)
    how = settings(steps=6)
    Lesson().learn(tmp_path / "lesson.pt", how)
    expected = [learning_rate(how, steps, steps / 6) for steps in range(6) for _ in ("matrices", "vectors")]
    assert rates == pytest.approx(expected)


def test_a_step_is_adamws(tmp_path: Path) -> None:
    """torch's own, not fused, on clipped gradients; biases do not decay."""
    how = settings(steps=1, weight_decay=0.3, most_gradient_norm=0.01, learning_rate=0.05)
    ours, theirs = Lesson(), Lesson()
    matrices = [parameter for parameter in theirs.model.parameters() if parameter.dim() == 2]
    vectors = [parameter for parameter in theirs.model.parameters() if parameter.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, 0.05, how.betas, weight_decay=0.3, fused=False)
    step = Step(ours, Optimiser([*ours.model.parameters()], how), torch.full((2,), torch.nan))
    for seed in range(3):
        torch.manual_seed(seed)
        step()
        torch.manual_seed(seed)
        adam.zero_grad()
        theirs().total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(theirs.model.parameters(), 0.01)
        adam.step()
    for name, parameter in theirs.model.named_parameters():
        torch.testing.assert_close(ours.model.get_parameter(name), parameter, atol=1e-6, rtol=1e-5)


def test_averages_begin_with_the_first_parts_and_follow_the_later_ones() -> None:
    lesson, averages = Lesson(), torch.full((2,), torch.nan)
    step = Step(lesson, Optimiser([*lesson.model.parameters()], settings(steps=1)), averages)
    expected = 1.0
    for asked in range(1, 6):
        step()
        expected += (asked - expected) / AVERAGE_OVER_STEPS
        assert float(averages[1]) == pytest.approx(expected)


def test_it_reports_and_validates_as_often_as_is_asked(tmp_path: Path, said: list[str]) -> None:
    Lesson().learn(tmp_path / "lesson.pt", settings(steps=20, report_every_steps=5, validations=4))
    beginnings = [
        "25%  step 5 ",
        "held out: error",
        "50%  step 10 ",
        "held out: error",
        "75%  step 15 ",
        "held out: error",
    ]
    beginnings += ["100%  step 20 ", "done after 20 steps; held out: error"]
    assert len(said) == len(beginnings)
    assert all(line.strip().startswith(beginning) for line, beginning in zip(said, beginnings, strict=True))


def test_kinds_are_drawn_by_their_weights(tmp_path: Path) -> None:
    asked = [0, 0]
    weight = nn.Parameter(torch.zeros(1))

    def kind(number: int) -> Callable[[], Loss]:
        def compute() -> Loss:
            asked[number] += 1
            return Loss(weight.sum(), weight)

        return compute

    module = nn.Module()
    module.weight = weight
    kinds = [Kind(kind(0), lambda: 1.0), Kind(kind(1), lambda: 3.0)]
    Trainer("kinds", {"module": module}, kinds, ("one",), settings(steps=400), tmp_path / "kinds.pt").run(dict)
    assert asked[0] == pytest.approx(100, abs=25)


def weights(lesson: Lesson) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in lesson.model.parameters()])


@pytest.mark.parametrize("interrupted_after", [1, 5, 8, 11])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path, interrupted_after: int) -> None:
    """Bit for bit, also where a validation, which draws numbers, fell before or after the interruption."""
    how = settings(steps=12, save_every_minutes=1e-9, validations=3)
    whole, again = Lesson(), Lesson()
    whole.learn(tmp_path / "whole.pt", how)
    with pytest.raises(KeyboardInterrupt):
        Lesson(lasts=interrupted_after).learn(tmp_path / "halves.pt", how)
    again.learn(tmp_path / "halves.pt", how)
    assert again.asked == 12 - interrupted_after
    assert weights(again).equal(weights(whole))
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "halves.pt"))
    assert one["averages"][0].equal(other["averages"][0])
    assert one["random"].equal(other["random"])
    assert one["roll"] == other["roll"]


def test_a_training_that_is_over_is_not_repeated(tmp_path: Path) -> None:
    how = settings(steps=5)
    Lesson().learn(tmp_path / "lesson.pt", how)
    again = Lesson()
    again.learn(tmp_path / "lesson.pt", how)
    assert again.asked == 0


def test_validations_always_draw_the_same_and_disturb_nothing(tmp_path: Path) -> None:
    often, seldom, drawn = Lesson(), Lesson(), list[Tensor]()

    def validate() -> Mapping[str, float]:
        drawn.append(torch.rand(3))
        return {}

    often.trainer(tmp_path / "often.pt", settings(steps=10, validations=10)).run(validate)
    seldom.trainer(tmp_path / "seldom.pt", settings(steps=10, validations=1)).run(dict)
    assert weights(often).equal(weights(seldom))
    assert len(drawn) == 10
    assert all(numbers.equal(drawn[0]) for numbers in drawn)
