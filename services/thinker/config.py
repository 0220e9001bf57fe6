"""Every knob of the Thinker, from ANTIPHON_THINKER_ variables; units are in the names."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.hosting.decoder_service import DecoderSettings


class RemoteExpertSettings(BaseSettings):
    """Of experts on shards elsewhere, from ANTIPHON_THINKER_EXPERTS_ variables."""

    model_config = SettingsConfigDict(
        env_prefix="ANTIPHON_THINKER_EXPERTS_", frozen=True, extra="ignore", populate_by_name=True
    )

    # host:port[,host:port...] of the shards; a name that stands for several hosts is all of them. On Ray Serve they are
    # found without.
    addresses: str = Field("", validation_alias="ANTIPHON_DIRECTORY_EXPERTS")
    # Rows come back for each pair, which is bit-equal to experts in this process, or as sums, which are less to carry.
    result: Literal["pairs", "sums"] = "pairs"
    # Shards with the same one share memory with this process. Unset: what the kernel of this host calls itself.
    host_id: str = ""

    # Of each layer, held by this process beside: those that are asked for most, chosen anew every so often and as far
    # as they fit into the memory.
    hot_experts: int = Field(0, ge=0)
    hot_experts_mb: int = Field(4096, gt=0)
    hot_experts_seconds: float = Field(30.0, gt=0)
    # Others that are held from the start, as layer:expert[,layer:expert...].
    local_experts: str = Field("", pattern=r"^(\d+:\d+(,\d+:\d+)*)?$")

    # A call is asked of another copy when it has taken so many times what calls of the shard usually take, but neither
    # sooner nor later than these. A shard without which an expert has no copy always has the most.
    patience_factor: float = Field(20.0, gt=1)
    least_patience_seconds: float = Field(0.25, gt=0)
    most_patience_seconds: float = Field(10.0, gt=0)
    # A shard that failed is left out for so long at first, and each time that it fails again for twice as long.
    probation_seconds: float = Field(2.0, gt=0)
    # In all of its layers together a step waits for so long for shards, be it for answers or for a copy of an expert
    # that has none; its requests may end sooner.
    wait_seconds: float = Field(120.0, gt=0)

    # Shards are asked what they hold, and told what was asked of experts.
    look_every_seconds: float = Field(1.0, gt=0)
    report_every_seconds: float = Field(5.0, gt=0)
    # Of what was asked: older than this it counts half.
    routing_half_life_seconds: float = Field(60.0, gt=0)
    answer_seconds: float = Field(2.0, gt=0)
    # One that has not answered for so long is not called any more.
    forget_seconds: float = Field(10.0, gt=0)

    # Steps of as many rows are computed in two halves, so that one is at the experts while the other is at the trunk.
    # Unset: none is.
    halved_rows: int | None = Field(None, ge=2)
    # Answers through shared memory are awaited awake for so long, which spares a waking and takes a core.
    awake_microseconds: float = Field(0.0, ge=0, le=1e6)
    # One in so many steps tells every call in the trace of one of its requests; 0: none does.
    traced_steps: int = Field(100, ge=0)


class ThinkerSettings(DecoderSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_THINKER_", frozen=True, extra="ignore")

    # Tokens that may wait for a slow reader before its request pauses.
    untaken_tokens: int = Field(64, gt=0)
    # Read into this process, or called on shards elsewhere.
    experts: Literal["local", "remote"] = "local"
    remote_experts: RemoteExpertSettings = Field(default_factory=RemoteExpertSettings)

    @property
    def longest_wait_seconds(self) -> float:
        return self.remote_experts.wait_seconds if self.experts == "remote" else 0.0
