"""A day of turns: tenants with days of their own, slow swings, sudden bursts, turns of any length. Drawn by a seed."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TENANTS: Final = 24
_FLOOR: Final = 0.1
_SWING: Final = 0.1
_SWING_SECONDS: Final = 600
_BURSTS_A_DAY: Final = 8.0
_FRAMES_PER_TOKEN: Final = 4.0
_LENGTH_SPREAD: Final = 0.6
_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Mix:
    """Of one tenant; medians of log-normal lengths."""

    sound_seconds: float
    prompt_rows: float
    frames: float


# Short questions to an assistant, calls with a history, and texts read aloud.
_MIXES: Final = (Mix(2.5, 180.0, 60.0), Mix(5.0, 800.0, 110.0), Mix(0.0, 300.0, 250.0))


@dataclass(frozen=True, slots=True)
class Turns:
    """One entry a turn, in the order of their arrival."""

    # Seconds of the day.
    arrived: Floats
    tenant: NDArray[np.int8]
    sound_seconds: NDArray[np.float32]
    prompt_rows: NDArray[np.float32]
    tokens: NDArray[np.float32]
    frames: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.arrived)


def turns_of(seed: int, *, hours: float, peak_per_second: float, begins_hour: float = 0.0) -> Turns:
    """peak_per_second: of the usual day, bursts not counted."""
    draws = np.random.default_rng(seed)
    rates = rates_of(draws, peak_per_second)
    seconds = (int(begins_hour * 3600) + np.arange(int(hours * 3600))) % _DAY_SECONDS
    counts = draws.poisson(rates[seconds])
    flat = counts.ravel()
    places = np.repeat(np.arange(flat.size, dtype=np.int64), flat)
    arrived = places // _TENANTS + draws.random(len(places))
    order = np.argsort(arrived)
    tenant = (places % _TENANTS).astype(np.int8)[order]
    return _drawn(draws, arrived[order], tenant)


def rates_of(draws: np.random.Generator, peak_per_second: float) -> Floats:
    """(seconds of a day, tenants): turns a second."""
    shares = 1.0 / np.arange(1, _TENANTS + 1)
    shares /= shares.sum()
    hour = np.arange(_DAY_SECONDS) / 3600
    usual = np.stack([_day(draws, hour) for _ in range(_TENANTS)], axis=1) * shares
    usual *= peak_per_second / usual.sum(axis=1).max()
    return usual * _swings(draws) * _bursts(draws)


def _day(draws: np.random.Generator, hour: Floats) -> Floats:
    """Two humps, hours of one tenant's own; little at night."""
    zone = draws.normal(0.0, 1.5)
    humps = ((10.5, 1.8, 1.0), (15.0, 2.2, 0.9), (20.5, 1.5, draws.uniform(0.2, 0.9)))
    distances = [(np.abs(hour - (centre + zone) % 24), width, height) for centre, width, height in humps]
    day = sum(height * np.exp(-0.5 * (np.minimum(away, 24 - away) / width) ** 2) for away, width, height in distances)
    return np.asarray(_FLOOR + day)


def _swings(draws: np.random.Generator) -> Floats:
    """Of each tenant by itself: within minutes up and down by a tenth."""
    steps = _DAY_SECONDS // _SWING_SECONDS + 2
    knots = np.exp(draws.normal(0.0, _SWING, (steps, _TENANTS)))
    at = np.arange(_DAY_SECONDS) / _SWING_SECONDS
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    return np.asarray(knots[low] * (1 - part) + knots[low + 1] * part)


def _bursts(draws: np.random.Generator) -> Floats:
    """Somebody's turns come thick and fast, within a minute or two, for some minutes."""
    factors = np.ones((_DAY_SECONDS, _TENANTS))
    second = np.arange(_DAY_SECONDS)
    for _ in range(draws.poisson(_BURSTS_A_DAY)):
        tenant, begins = draws.integers(0, _TENANTS // 2), draws.integers(0, _DAY_SECONDS)
        rise, length, height = draws.uniform(60, 180), draws.uniform(300, 1200), draws.uniform(2, 6)
        shape = np.clip((second - begins) / rise, 0, 1) * np.clip((begins + length - second) / rise, 0, 1)
        factors[:, tenant] += height * shape
    return factors


def _drawn(draws: np.random.Generator, arrived: Floats, tenant: NDArray[np.int8]) -> Turns:
    medians = np.array([(mix.sound_seconds, mix.prompt_rows, mix.frames) for mix in _MIXES])[tenant % len(_MIXES)]
    spread = np.exp(draws.normal(0.0, _LENGTH_SPREAD, (len(arrived), 3)))
    lengths = (medians * spread).astype(np.float32)
    frames = np.clip(lengths[:, 2], 8, 750)
    return Turns(
        arrived,
        tenant,
        np.clip(lengths[:, 0], 0, 30),
        np.clip(lengths[:, 1], 20, 3000),
        np.ceil(frames / _FRAMES_PER_TOKEN),
        frames,
    )
