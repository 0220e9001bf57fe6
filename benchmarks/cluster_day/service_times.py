"""What the work of a turn takes on one replica of each stage: a table, measured or estimated, as a file of JSON."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

TABLES: Final = Path(__file__).parent / "tables"
FRAME_SECONDS: Final = 0.08


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Steps(_Table):
    """A step with n requests takes seconds + n * each_seconds."""

    seconds: float = Field(ge=0)
    each_seconds: float = Field(gt=0)


class Starts(_Table):
    """From the wish for a replica until it answers."""

    gateway: float = Field(gt=0)
    encoders: float = Field(gt=0)
    thinker: float = Field(gt=0)
    experts: float = Field(gt=0)
    talker: float = Field(gt=0)
    codec: float = Field(gt=0)


class ExpertTimes(_Table):
    """Of a call for one layer with some (row, expert) pairs; and the model's layers and experts."""

    calls: Steps
    layers: int
    experts: int
    experts_per_token: int
    # (layer, expert) that one shard has room for.
    shard_capacity: int


class ServiceTimes(_Table):
    kind: Literal["measured", "estimated"]
    # On what, by which command, from which page.
    source: str
    # Of the first sound, without any stage's queue or computation.
    platform_seconds: float
    # Of a sound, by its seconds.
    encoding: Steps
    # Of a prompt, by its rows; and of answers that go on together.
    prompt: Steps
    tokens: Steps
    # The same of the Talker.
    speech_prompt: Steps
    frames: Steps
    # Pushes of the codec, by the frames in them; and how many of one speech go together.
    pushes: Steps
    frames_per_push: int
    # Of the gateway, for each frame of a listener.
    gateway_frame_seconds: float
    experts: ExpertTimes
    starts: Starts


def read_table(name: str) -> ServiceTimes:
    return ServiceTimes.model_validate_json((TABLES / f"{name}.json").read_text())
