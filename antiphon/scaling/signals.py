"""What a replica of each stage tells of itself, so that its stage can be scaled; averages of its latest seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallSignals:
    """Of any stage, and all that is known of the gateway."""

    # That are answered or wait.
    calls: float


@dataclass(frozen=True, slots=True)
class EncoderSignals:
    # Until all that waits has been computed.
    backlog_seconds: float
    # Share of the time in which its busiest worker computed, from 0 to 1.
    busy_share: float


@dataclass(frozen=True, slots=True)
class ThinkerSignals:
    # Of prompts, that could be computed and are not.
    waiting_rows: float
    # Computed a second: rows of prompts, and tokens of answers.
    prompt_rate: float
    token_rate: float
    # Of steps in which answers went on.
    step_p95_seconds: float
    pages_used: float
    page_count: float


@dataclass(frozen=True, slots=True)
class SpeechSignals:
    """Of a Talker or a codec: speeches, and how their listeners fare."""

    # Open, those included that wait for a place, and places for them.
    streams: float
    places: float
    # Seconds of sound made a second: as many listeners are kept in sound.
    sound_rate: float
    # With listeners who hear sound by now; and of these, those whose sound ends in a moment although there is something
    # to go on with.
    playing: float
    short_leads: float
    # From the moment at which all was there until the first output, of the latest speeches.
    first_p95_seconds: float


@dataclass(frozen=True, slots=True)
class ExpertSignals:
    """Of a shard."""

    # From a call's arrival to its begin.
    queued_p95_seconds: float
    # Share of the time in which it computed, from 0 to 1.
    utilisation: float
    # (layer, expert) that fit, and those that the model has.
    capacity: float
    experts: float


Signals = CallSignals | EncoderSignals | ThinkerSignals | SpeechSignals | ExpertSignals
