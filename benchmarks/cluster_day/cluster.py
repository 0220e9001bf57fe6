"""The whole platform of a day, slice by slice: turns go from stage to stage at moments of their own; replicas start,
die and drain between slices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster_day.pool import Pool
from benchmarks.cluster_day.queues import Floats, Integers, Line, Paced, Shared
from benchmarks.cluster_day.service_times import FRAME_SECONDS, ServiceTimes
from benchmarks.cluster_day.shards import Shards, Trunks
from benchmarks.cluster_day.traffic import Turns

Stage = Literal["gateway", "encoders", "thinker", "experts", "talker", "codec"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

_PLACES: Final = 128
_HORIZON_SECONDS: Final = 128
_MOST_BESIDE: Final = 0.9
# What replicas tell is of so long.
_TOLD_SECONDS: Final = 10.0
_OF_FIRST: Final = 0.1
# With a wait of more than this at every replica of a stage, newcomers are refused.
_LONGEST_WAIT_SECONDS: Final = 5.0
# Behind by more than this, the codec's listeners hear silence.
_CODEC_LEAD_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is not the platform's: how long the cluster takes for a new replica, beside its own start, and how long one
    lives; failures are drawn by the seed."""

    provision_seconds: float = 45.0
    hours_between_failures: float = 100.0
    slice_seconds: float = 2.0
    seed: int = 1


@dataclass(slots=True)
class Outcomes:
    """One entry a turn."""

    first_audio_seconds: NDArray[np.float32]
    # Times that it ended; once is right.
    ended: NDArray[np.int8]
    fell_silent: NDArray[np.bool_]
    failures: int = 0
    refused: int = 0

    @classmethod
    def of(cls, count: int) -> "Outcomes":
        return cls(np.full(count, np.inf, np.float32), np.zeros(count, np.int8), np.zeros(count, np.bool_))


@dataclass(slots=True)
class _Waiting:
    """Turns on their way to a stage."""

    turns: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    at: Floats = field(default_factory=lambda: np.zeros(0))

    def add(self, turns: Integers, at: Floats) -> None:
        self.turns, self.at = np.concatenate((self.turns, turns)), np.concatenate((self.at, at))

    def due(self, until: float) -> tuple[Integers, Floats]:
        """In the order of their arrival."""
        comes = self.at < until
        turns, at = self.turns[comes], self.at[comes]
        self.turns, self.at = self.turns[~comes], self.at[~comes]
        order = np.argsort(at, kind="stable")
        return turns[order], at[order]


class Cluster:
    def __init__(
        self, times: ServiceTimes, turns: Turns, replicas: Mapping[Stage, int], surroundings: Surroundings
    ) -> None:
        self.times, self.turns, self._around = times, turns, surroundings
        self._draws = np.random.default_rng([surroundings.seed, 1])
        self.pools = {stage: Pool(replicas[stage], self._starts(stage)) for stage in STAGES}
        self.encoders, self.prompts = Line(self.pools["encoders"]), Line(self.pools["thinker"])
        self.answers = Shared(self.pools["thinker"], times.tokens)
        self.speeches = Shared(self.pools["talker"], times.frames)
        push = times.pushes.seconds + times.frames_per_push * times.pushes.each_seconds
        per_second = push / (times.frames_per_push * FRAME_SECONDS)
        self.codec = Paced(self.pools["codec"], per_second, _HORIZON_SECONDS)
        self.gateway = Paced(self.pools["gateway"], times.gateway_frame_seconds / FRAME_SECONDS, _HORIZON_SECONDS)
        self.shards = Shards(self.pools["experts"], times.experts, np.random.default_rng([surroundings.seed, 2]))
        self.outcomes = Outcomes.of(len(turns))
        self._newest = surroundings.slice_seconds / _TOLD_SECONDS
        self.now = 0.0
        size = len(self.pools["talker"].serves)
        # Share of its latest seconds that a Talker spent on prompts; rows of prompts that a Thinker read, a second.
        self.speech_prompts, self.prompt_rate = np.zeros(size), np.zeros(size)
        self.first_frame_seconds, self.step_seconds = np.zeros(size), np.zeros(size)
        self.leads = np.zeros(0)
        self._to_thinker, self._to_talker = _Waiting(), _Waiting()
        self._codec_of = np.zeros(len(turns), dtype=np.int16)
        self._next = 0

    def advance(self) -> None:
        """One slice."""
        until = self.now + self._around.slice_seconds
        self._fail()
        self._arrive(until)
        self._read(until)
        self._speak(until)
        self._end(until)
        self.now = until

    def _starts(self, stage: Stage) -> float:
        return float(getattr(self.times.starts, stage)) + self._around.provision_seconds

    def _arrive(self, until: float) -> None:
        """Media first; who sends none goes to the Thinker at once."""
        stop = int(np.searchsorted(self.turns.arrived, until))
        turns, self._next = np.arange(self._next, stop), stop
        if self._is_full():
            self.outcomes.ended[turns] += 1
            self.outcomes.refused += len(turns)
            turns = turns[:0]
        at, sound = self.turns.arrived[turns], self.turns.sound_seconds[turns].astype(np.float64)
        has_sound = sound > 0
        work: Floats = np.zeros(len(self.encoders.free_at))
        if has_sound.any():
            encoding = self.times.encoding.seconds + self.times.encoding.each_seconds * sound[has_sound]
            done, where = self.encoders.serve(at[has_sound], encoding)
            at = at.copy()
            at[has_sound] = done
            work = np.bincount(where, weights=encoding, minlength=len(work))
        self.encoders.pass_time(self.now, self._around.slice_seconds, work)
        self._to_thinker.add(turns, at)

    def _is_full(self) -> bool:
        waits = (
            self.encoders.backlog(self.now)[self.encoders.pool.serving].min(),
            self.prompts.backlog(self.now)[self.prompts.pool.serving].min(),
            self.codec.late_seconds[self.codec.pool.serving].min(),
            self.gateway.late_seconds[self.gateway.pool.serving].min(),
        )
        talkers = self.speeches.pool.serving
        return bool(max(waits) > _LONGEST_WAIT_SECONDS or self.speeches.live[talkers].min() >= _PLACES)

    def _read(self, until: float) -> None:
        """Prompts one after the other, answers beside them."""
        turns, at = self._to_thinker.due(until)
        work: Floats = np.zeros(len(self.prompts.free_at))
        prompts = self.times.prompt
        if len(turns):
            rows = self.turns.prompt_rows[turns].astype(np.float64)
            reading = prompts.seconds + prompts.each_seconds * rows
            done, where = self.prompts.serve(at, reading)
            first_token = done + self.step_seconds[where] + self.answers.step_seconds(self.answers.live[where] + 1)
            self.answers.enter(turns, where, self.turns.tokens[turns].astype(np.float64), first_token)
            self._to_talker.add(turns, first_token)
            work = np.bincount(where, weights=reading, minlength=len(work))
        seconds = self._around.slice_seconds
        rate = work / seconds / max(prompts.each_seconds, 1e-12)
        self.prompt_rate += self._newest * (rate - self.prompt_rate)
        trunks = Trunks(
            np.where(self.answers.live > 0, self.answers.speed, 0.0),
            self.answers.live,
            len(turns) / seconds,
            rate.sum(),
        )
        self.step_seconds = self.shards.pass_time(self.now, seconds, trunks)
        self.prompts.pass_time(self.now, seconds, work)

    def _speak(self, until: float) -> None:
        turns, at = self._to_talker.due(until)
        prompts, seconds = self.times.speech_prompt, self._around.slice_seconds
        work: Floats = np.zeros(len(self.speech_prompts))
        if len(turns):
            reading = prompts.seconds + prompts.each_seconds * self.turns.prompt_rows[turns]
            where = self.speeches.choose(len(turns))
            frames = self.turns.frames[turns].astype(np.float64)
            first = at + self._first_frame(where, reading, float(frames.mean()))
            self.speeches.enter(turns, where, frames, first)
            self._hear(turns, first, frames)
            work = np.bincount(where, weights=reading, minlength=len(work))
        self.speech_prompts += self._newest * (work / seconds - self.speech_prompts)

    def _first_frame(self, where: Integers, reading: Floats, frames: float) -> Floats:
        """The step under way, the prompt, a step; and a place before, where all are taken."""
        live = self.speeches.live[where] + 1
        step = self.speeches.step_seconds(np.minimum(live, _PLACES))
        waits = np.maximum(live - _PLACES, 0) * frames * step / _PLACES
        first = (1.5 * step + reading) / (1 - np.minimum(self.speech_prompts[where], _MOST_BESIDE)) + waits
        self.first_frame_seconds[where] += _OF_FIRST * (first - self.first_frame_seconds[where])
        return np.asarray(first)

    def _hear(self, turns: Integers, first_frame: Floats, frames: Floats) -> None:
        listens = frames * FRAME_SECONDS + 1.0
        codec, gateway = self.codec.enter(self.now, listens), self.gateway.enter(self.now, listens)
        first_sound = (
            first_frame + self.first_push_seconds(codec) + self._first_packet(gateway) + self.times.platform_seconds
        )
        self.outcomes.first_audio_seconds[turns] = first_sound - self.turns.arrived[turns]
        self._codec_of[turns] = codec

    def first_push_seconds(self, codec: Integers) -> Floats:
        """It goes before all others, and waits for the one under way."""
        pushes, use = self.times.pushes, np.minimum(self.codec.use[codec], _MOST_BESIDE)
        alone, under_way = (
            pushes.seconds + pushes.each_seconds,
            pushes.seconds + pushes.each_seconds * self.times.frames_per_push,
        )
        return np.asarray(alone / (1 - use) + use * under_way / 2 + self.codec.late_seconds[codec])

    def _first_packet(self, gateway: Integers) -> Floats:
        use = np.minimum(self.gateway.use[gateway], _MOST_BESIDE)
        return np.asarray(self.times.gateway_frame_seconds / (1 - use) + self.gateway.late_seconds[gateway])

    def _end(self, until: float) -> None:
        seconds = self._around.slice_seconds
        read = self.prompt_rate * self.times.prompt.each_seconds
        step = self.answers.step_seconds(np.maximum(self.answers.live, 1))
        self.answers.advance(seconds, (1 + self.step_seconds / step) / (1 - np.minimum(read, _MOST_BESIDE)))
        ended = self.speeches.advance(seconds, 1 / (1 - np.minimum(self.speech_prompts, _MOST_BESIDE)))
        self.outcomes.ended[ended] += 1
        self.leads = self.speeches.leads(until, FRAME_SECONDS)
        self.outcomes.fell_silent[self.speeches.turn[self.leads < 0]] = True
        self.pools["talker"].pass_time(self.now, seconds, self.speeches.live > 0)
        self.codec.pass_time(self.now, seconds)
        self.gateway.pass_time(self.now, seconds)
        self._silence_of_the_codec()

    def _silence_of_the_codec(self) -> None:
        behind = np.flatnonzero(self.codec.late_seconds > _CODEC_LEAD_SECONDS)
        if len(behind):
            began = int(np.searchsorted(self.turns.arrived, self.now - 10.0))
            latest = np.arange(began, self._next)
            self.outcomes.fell_silent[latest[np.isin(self._codec_of[latest], behind)]] = True

    def _fail(self) -> None:
        """What a dead replica had begun goes on elsewhere; a listener with less sound than that takes hears it."""
        per_slice = self._around.slice_seconds / 3600 / self._around.hours_between_failures
        for stage, pool in self.pools.items():
            count = int(self._draws.poisson(per_slice * max(1, len(pool.serving))))
            if count:
                self._recover(stage, pool.fail(count, self._draws, self.now))

    def _recover(self, stage: Stage, dead: Integers) -> None:
        self.outcomes.failures += len(dead)
        if stage in ("codec", "gateway"):
            (self.codec if stage == "codec" else self.gateway).move_from(dead)
        elif stage in ("thinker", "talker"):
            shared = self.answers if stage == "thinker" else self.speeches
            turns, left = shared.take_from(dead)
            if len(turns):
                shared.enter(turns, shared.choose(len(turns)), left, np.full(len(turns), self.now))
                self.outcomes.fell_silent[turns] |= stage == "talker"
