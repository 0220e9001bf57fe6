"""How much of the budget is used, and the learning rate there."""

import math

from .settings import TrainingSettings


def share_done(settings: TrainingSettings, steps: int, seconds: float) -> float:
    """Of the budget, 0 to 1: of the steps or of the minutes, whichever is further."""
    of_steps = steps / settings.steps if settings.steps else 0.0
    of_time = seconds / 60 / settings.minutes if settings.minutes else 0.0
    return min(1.0, max(of_steps, of_time))


def learning_rate(settings: TrainingSettings, steps: int, done: float) -> float:
    """A linear warm-up, then half a cosine down to `last_rate_share` of the peak."""
    warm = min(1.0, (steps + 1) / settings.warm_up_steps)
    last = settings.last_rate_share
    return settings.learning_rate * warm * (last + (1 - last) * (1 + math.cos(math.pi * done)) / 2)
