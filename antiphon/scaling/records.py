"""Windows and decisions as lines of JSON, the plan first; and what the same or another plan makes of them."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from antiphon.errors import InvalidInput
from antiphon.scaling.scaler import Plan, Scaler, told
from antiphon.scaling.window import Decision, Window


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    at_seconds: float
    target: int
    running: int
    # Their signals by name.
    replicas: list[dict[str, float]]
    decided: int
    reason: str


@dataclass(frozen=True, slots=True)
class Replayed:
    at_seconds: float
    target: int
    recorded: Decision
    decided: Decision


def plan_line(plan: Plan) -> str:
    return plan.model_dump_json()


def window_line(window: Window[Any], decision: Decision) -> str:
    record = _Record(
        at_seconds=window.at_seconds,
        target=window.target,
        running=window.running,
        replicas=[asdict(replica) for replica in window.replicas],
        decided=decision.replicas,
        reason=decision.reason,
    )
    return record.model_dump_json()


def replay(lines: Iterable[str], plan: Plan | None = None) -> Iterator[Replayed]:
    """plan: another than was recorded; each window still has the target that there was. Raises InvalidInput."""
    scaler: Scaler | None = None
    for number, line in enumerate(lines, start=1):
        try:
            if scaler is None:
                recorded = Plan.model_validate_json(line)
                scaler = Scaler(plan or recorded)
                continue
            record = _Record.model_validate_json(line)
        except ValidationError as error:
            expected = "a plan" if scaler is None else "a window and what was decided"
            raise InvalidInput(f"Line {number}: expected {expected}; {error}") from error
        signals = told(scaler.plan, record.replicas)
        decision = scaler.decide(Window(record.at_seconds, record.target, record.running, signals))
        yield Replayed(record.at_seconds, record.target, Decision(record.decided, record.reason), decision)
