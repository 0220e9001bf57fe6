"""Where each token of a prompt stands in time, height and width (M-RoPE), for Thinker and Talker.

The sums are made in float32 and in the order of transformers' get_rope_index: the results are equal bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.placeholders import PlacedMedium, merged_by_time

Positions = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PositionRules:
    position_id_per_seconds: int
    merge_size: int


def thinker_positions(length: int, media: Sequence[PlacedMedium], rules: PositionRules) -> Positions:
    """(3, length)"""
    walk = _Walk(rules)
    for medium in media:
        walk.text_until(medium.first - medium.marker_count)
        walk.medium(medium.layout, medium.marker_count)
    walk.text_until(length)
    return walk.positions()


def talker_positions(length: int, media: Sequence[PlacedMedium], rules: PositionRules) -> Positions:
    """(3, length). The Talker was trained without knowing of sound tracks: to it, a film with sound that no picture or
    silent film follows is a sound and then text."""
    last_seen = max((n for n, medium in enumerate(media) if _is_plainly_visual(medium)), default=-1)
    walk = _Walk(rules)
    for number, medium in enumerate(media):
        if medium.has_sound_track and number > last_seen:
            walk.text_until(medium.first - 1)
            walk.sound(medium.layout.audio_token_count, marker_count=1)
        else:
            walk.text_until(medium.first - medium.marker_count)
            walk.medium(medium.layout, medium.marker_count)
    walk.text_until(length)
    return walk.positions()


def next_position(positions: Positions) -> float:
    """Of what follows the prompt: one past its last token, not past its largest position. The two differ after a film
    whose picture is wider than its sound is long."""
    return float(positions[:, -1].max() + np.float32(1))


class _Walk:
    """Positions from left to right; every stretch starts where the one before it ended."""

    def __init__(self, rules: PositionRules) -> None:
        self._rules = rules
        self._stretches: list[Positions] = [np.zeros((3, 0), np.float32)]
        self._length = 0
        self._here = np.float32(0)

    def text_until(self, index: int) -> None:
        self._line(index - self._length)

    def medium(self, layout: MediaLayout, marker_count: int) -> None:
        if layout.modality == "audio":
            self.sound(layout.token_count, marker_count)
            return
        self._line(marker_count)
        if layout.audio_token_count:
            self._film_with_sound(layout)
        else:
            self._append(self._grid(layout))
            self._go_past(self._stretches[-1])
        self._close(marker_count)

    def sound(self, token_count: int, marker_count: int) -> None:
        self._line(marker_count)
        self._close(token_count)
        self._close(marker_count)

    def positions(self) -> Positions:
        return np.concatenate(self._stretches, axis=1)

    def _line(self, count: int) -> None:
        self._append(self._counted(count))
        self._here = np.float32(self._here + np.float32(count))

    def _close(self, count: int) -> None:
        """A line after which counting starts afresh from its last position, which rounds differently."""
        line = self._counted(count)
        self._append(line)
        self._go_past(line)

    def _film_with_sound(self, layout: MediaLayout) -> None:
        frames, sound = self._grid(layout), self._counted(layout.audio_token_count)
        order = merged_by_time(frames[0], sound[0])
        self._append(np.concatenate([frames, sound], axis=1)[:, order])
        # What follows starts past the leftovers of whichever was longer, not past the whole film.
        is_frame = order < layout.token_count
        leftovers = int(np.argmax(is_frame[::-1] != is_frame[-1]))
        self._go_past(self._stretches[-1][:, -leftovers:])

    def _counted(self, count: int) -> Positions:
        return np.broadcast_to(np.arange(count, dtype=np.float32) + self._here, (3, count))

    def _grid(self, layout: MediaLayout) -> Positions:
        """(3, tokens) of the merged patches, row by row, patch in time by patch in time."""
        rows, columns = layout.grid_height // self._rules.merge_size, layout.grid_width // self._rules.merge_size
        seconds = np.float32(layout.seconds_per_grid if layout.modality == "video" else 1)
        times = (
            np.arange(layout.grid_time, dtype=np.float32) * seconds * np.float32(self._rules.position_id_per_seconds)
        )
        axes = np.meshgrid(times, np.arange(rows), np.arange(columns), indexing="ij")
        return np.stack([axis.astype(np.float32).ravel() for axis in axes]) + self._here

    def _append(self, stretch: Positions) -> None:
        self._stretches.append(stretch)
        self._length += stretch.shape[1]

    def _go_past(self, stretch: Positions) -> None:
        self._here = np.float32(stretch.max() + np.float32(1))


def _is_plainly_visual(medium: PlacedMedium) -> bool:
    return medium.layout.modality != "audio" and not medium.has_sound_track
