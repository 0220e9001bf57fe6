"""One stage's decisions, one window after the other; the same live, replayed and simulated."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from antiphon.scaling.pacing import Bounds, History, Pacing, Standing, decide
from antiphon.scaling.policies import Policy
from antiphon.scaling.signals import (
    CallSignals,
    EncoderSignals,
    ExpertSignals,
    Signals,
    SpeechSignals,
    ThinkerSignals,
)
from antiphon.scaling.window import Decision, Window

SIGNALS: Final[Mapping[str, type[Signals]]] = {
    "calls": CallSignals,
    "encoders": EncoderSignals,
    "thinker": ThinkerSignals,
    "speech": SpeechSignals,
    "experts": ExpertSignals,
}


class Plan(BaseModel):
    """How one stage is scaled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: Policy
    pacing: Pacing = Pacing()
    bounds: Bounds = Bounds()


class Scaler:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._history = History()

    def decide(self, window: Window[Any]) -> Decision:
        """window: of the signals that the plan's policy reads; later than the one before."""
        demand = self.plan.policy.demand(window) if window.replicas else None
        standing = Standing(window.at_seconds, window.target, window.is_complete, demand)
        decision, self._history = decide(self.plan.pacing, self.plan.bounds, self._history, standing)
        return decision


def told(plan: Plan, replicas: Sequence[Mapping[str, float]]) -> list[Signals]:
    """From signals by their names, one mapping a replica. Who does not tell all that the policy reads tells nothing."""
    kind = SIGNALS[plan.policy.kind]
    names = [field.name for field in fields(kind)]
    return [
        kind(**{name: float(replica[name]) for name in names})
        for replica in replicas
        if all(name in replica for name in names)
    ]
