"""Every knob of an expert shard, from ANTIPHON_EXPERTS_ variables; units are in the names."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.model.placement import DeviceName, TypeName
from services.experts.keeper_config import KeeperSettings


class ExpertsSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_EXPERTS_", frozen=True, extra="ignore")

    checkpoint: Path
    device: DeviceName = "auto"
    # In the type that they have on disk, experts on a CPU stay there, mapped.
    dtype: TypeName = "auto"

    # What it holds when it begins: all experts; none, and waits for an assignment; or of some shards the one with this
    # number, such as 1/4 to 4/4.
    holds: str = Field("all", pattern=r"^(all|none|[1-9]\d{0,3}/[1-9]\d{0,3})$")
    # Of each expert, among those shards.
    copies: int = Field(1, gt=0)
    # (layer, expert) that fit. Unset: all of the model's.
    capacity: int | None = Field(None, gt=0)

    # Where trunks of this host find it: a folder that only its owner may enter, made if it is not there. Unset, one of
    # this user among the system's temporary files.
    socket_folder: Path | None = None
    # Off, trunks of this host call over gRPC, too.
    shares_memory: bool = True
    # Processes with the same one share memory. Unset: what the kernel of this host calls itself.
    host_id: str = ""
    # Experts have copies in different ones. Unset: the host.
    zone: str = ""

    # That are open at the same time; a trunk has one for each of its lanes.
    links: int = Field(128, gt=0)
    rows_per_call: int = Field(4096, gt=0)
    pairs_per_call: int = Field(32_768, gt=0)
    # That one link may ask to be mapped.
    shared_memory_mb: int = Field(1024, gt=0)
    # After each call a trunk of this host is awaited awake for so long, which spares it the shard's waking and takes a
    # core; for shards with a core to themselves.
    awake_microseconds: float = Field(0.0, ge=0, le=1e6)
    # Experts that are given up linger for so long: trunks that have not heard of it yet still call them here.
    linger_seconds: float = Field(2.0, ge=0)
    # What a trunk reported of its routing is forgotten after this.
    report_seconds: float = Field(30.0, gt=0)
    # Of trunks whose reports are kept.
    reports: int = Field(256, gt=0)
    # Where experts are held is kept by one of the shards, for all.
    keeper: KeeperSettings = Field(default_factory=KeeperSettings)

    # A shard that is about to stop has nothing to do any more when nobody has called for so long.
    idle_seconds: float = Field(2.0, gt=0)
