"""What the services around a decoder share: their knobs, and how they tell their load."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from antiphon.engine.load import Load
from antiphon.engine.loading import DecoderBounds
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.hosting.service import ServiceLoad
from antiphon.model.placement import DeviceName, TypeName


class DecoderSettings(BaseSettings):
    checkpoint: Path
    device: DeviceName = "auto"
    # Of weights and of the key/value store.
    dtype: TypeName = "auto"

    # The key/value store, shared by all requests: rows of prompts and of what is generated.
    cache_rows: int = Field(65_536, gt=0)
    page_rows: int = Field(16, gt=0)
    # Requests of one tenant share the pages of what their prompts have in common.
    shares_pages: bool = True
    # A prompt and what is generated; unset takes what the checkpoint allows.
    context_rows: int | None = Field(None, gt=0)

    # One step of the model: rows of prompts and of what is generated together. What is sent of them must fit into one
    # message.
    rows_per_step: int = Field(512, gt=0, le=4096)
    running_requests: int = Field(128, gt=0)
    waiting_requests: int = Field(256, gt=0)
    # Rows of media that all requests together may hold until they have been read.
    media_rows: int = Field(262_144, gt=0)

    @property
    def page_count(self) -> int:
        return -(-self.cache_rows // self.page_rows)

    def context(self, most_rows: int) -> int:
        """Rows of one request, of the `most_rows` that the checkpoint allows."""
        return min(most_rows, self.context_rows or most_rows)

    def bounds(self) -> DecoderBounds:
        steps = SchedulerLimits(self.running_requests, self.waiting_requests, self.rows_per_step)
        return DecoderBounds(steps, self.page_count, self.page_rows, self.media_rows)


def service_load(load: Load) -> ServiceLoad:
    return ServiceLoad(waiting=load.waiting, running=load.running, pages_used=load.pages_used)
