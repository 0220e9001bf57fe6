"""The windows of the sounds of one request: which were encoded before, and which go to the model together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from antiphon.engine.sequence import Share
from antiphon.model.audio_encoder import AudioWindow
from antiphon.model.audio_features import log_mel
from services.encoders.row_cache import RowCache
from services.encoders.sounds import Samples
from services.encoders.workers import Workers


@dataclass(frozen=True, slots=True)
class FoundWindow:
    window: AudioWindow
    # None for one that is not to be remembered: nothing is, or it is incomplete and its sound may go on.
    key: bytes | None = None
    # (rows, width), known from before.
    rows: Tensor | None = None


@dataclass(frozen=True, slots=True)
class WindowFinder:
    """Of one request."""

    workers: Workers
    cache: RowCache
    cache_salt: bytes
    share: Share

    def windows_of(self, sounds: Sequence[Samples], longest: int, padded_second: int) -> list[list[FoundWindow]]:
        """On a reader thread. Of sounds of the request, not all perhaps; longest: samples of its longest sound, and
        padded_second: what its sounds' last seconds are padded to, in frames."""
        windows = self.workers.audio_windows(log_mel(sounds, longest=longest), padded_second)
        return [[self._found(window) for window in sound] for sound in windows]

    def _found(self, window: AudioWindow) -> FoundWindow:
        if window.mel.shape[1] < self.workers.window_frames:
            return FoundWindow(window)
        key = self.cache.window_key(self.cache_salt, window)
        return FoundWindow(window, key, self.cache.find_window(key))

    async def rows_of(self, job: Sequence[FoundWindow]) -> list[Tensor]:
        """Of the windows of one job."""
        known = [each.rows for each in job if each.rows is not None]
        if len(known) == len(job):
            return known
        rows = await self.workers.audio.run([each.window for each in job], share=self.share)
        for each, encoded in zip(job, rows, strict=True):
            if each.key is not None:
                self.cache.keep_window(each.key, encoded)
        return rows


def jobs_of(windows: Sequence[FoundWindow], most: int) -> Iterator[list[FoundWindow]]:
    """In order, at most so many each, and all known or all not."""
    for _, run in groupby(windows, key=lambda each: each.rows is None):
        alike = list(run)
        for start in range(0, len(alike), most):
            yield alike[start : start + most]
