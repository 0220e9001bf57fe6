"""What the encoders compute: the media of a request read, laid out and turned into rows for the Thinker.

Reading (decoding, resampling, resizing) has threads of its own, and each model one; a request has one piece of work
under way at a time, so long media do not hold up short ones. What was sent before is neither read nor computed again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from antiphon.engine.fairness import leaves_room
from antiphon.engine.sequence import Clock, Share
from antiphon.errors import AtCapacity, Unavailable
from antiphon.model.config import OmniConfig
from antiphon.model.vision_patches import VisionPreprocessor
from antiphon.scaling.signals import EncoderSignals
from services.encoders.config import EncodersSettings
from services.encoders.encoding import Encoding, Means, Place
from services.encoders.media import MediaItem
from services.encoders.row_cache import RowCache
from services.encoders.workers import Workers


class EncodersEngine:
    def __init__(self, settings: EncodersSettings) -> None:
        self._config = OmniConfig.from_checkpoint(settings.checkpoint)
        most_tokens = min(settings.request_tokens, self._config.thinker.text.max_positions)
        self.settings = settings.model_copy(update={"request_tokens": most_tokens})
        self.preprocessor = VisionPreprocessor.from_checkpoint(settings.checkpoint, self._config.thinker.vision)
        self.cache = RowCache(settings.cache_bytes)
        self._workers: Workers | None = None
        self._live_requests = 0
        self._of_tenants: Counter[str] = Counter()
        self._held_bytes = 0

    @property
    def live_requests(self) -> int:
        return self._live_requests

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def waiting(self) -> int:
        return 0 if self._workers is None else self._workers.waiting()

    def signals(self) -> EncoderSignals:
        return EncoderSignals(0.0, 0.0) if self._workers is None else self._workers.signals()

    def check(self) -> None:
        """Raises when it cannot answer any more."""
        if self._workers is not None:
            self._workers.check()

    async def start(self) -> None:
        """Loads both models, which takes a while, and starts the threads."""
        self._workers = await asyncio.to_thread(Workers.load, self.settings, self._config, self.preprocessor)
        self._workers.start()

    async def close(self) -> None:
        if self._workers is not None:
            await self._workers.stop()

    @contextmanager
    def admit(self, byte_count: int, share: Share) -> Iterator[Place]:
        """For one request with media of so many bytes, until the block is left. Raises AtCapacity or TooLarge."""
        own = self._of_tenants[share.tenant]
        if not leaves_room(self.settings.requests, self._live_requests, own, share):
            raise AtCapacity(f"All {self.settings.requests} places of the encoders are taken. Try again soon.")
        place = Place(self.settings.held_bytes, self._hold)
        place.hold(byte_count)
        self._live_requests += 1
        self._of_tenants[share.tenant] += 1
        try:
            yield place
        finally:
            self._live_requests -= 1
            self._of_tenants -= Counter([share.tenant])
            self._held_bytes -= place.byte_count

    def _hold(self, byte_count: int) -> None:
        if self._held_bytes + byte_count > self.settings.held_bytes:
            raise AtCapacity("The encoders hold all the media that they may. Try again soon.")
        self._held_bytes += byte_count

    def encode(
        self, items: Sequence[MediaItem], place: Place, arrived: float, cache_salt: bytes, share: Share
    ) -> Encoding:
        """arrived: of time.monotonic(). An empty salt shares rows with nobody."""
        if self._workers is None:
            raise Unavailable("The encoders are still loading their models. Try again soon.")
        means = Means(self.settings, self.preprocessor, self._workers, self.cache)
        return Encoding(means, items, place, Clock(arrived=arrived), cache_salt, share)
