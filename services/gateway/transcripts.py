"""What was said to one caller, kept and found under his tenant."""

import logging
import time
from dataclasses import dataclass

from antiphon.errors import AtCapacity, Unavailable
from antiphon.sessions.transcripts import Transcripts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OwnTranscripts:
    kept: Transcripts
    tenant: str

    async def keep(self, audio_id: str, transcript: str) -> int:
        """Returns when it will be forgotten, in seconds since the epoch: now, where it could not be kept. The answer
        was given all the same."""
        try:
            return await self.kept.keep(self.tenant, audio_id, transcript)
        except (Unavailable, AtCapacity) as error:
            _LOG.warning("A transcript was not kept: %s", error.message)
            return int(time.time())

    async def find(self, audio_id: str) -> str | None:
        """Raises Unavailable."""
        return await self.kept.find(self.tenant, audio_id)
