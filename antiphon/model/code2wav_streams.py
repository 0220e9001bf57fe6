"""What streams of Code2Wav remember between pushes: a row of each tensor a stream, so that many go through at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

import torch
from torch import Tensor

from antiphon.model.causal_convolution import Tails

# Frames of a stream computed at once: bounds the memory of a long push; more gains nothing.
PUSH_FRAMES: Final = 32


class FrameDecoder(Protocol):
    def __call__(self, codes: Tensor, keys_values: Tensor, frame_counts: Tensor, tails: Tails) -> Tensor:
        """codes (streams, frames, quantizers) after `frame_counts` (streams) frames -> (streams, samples). Keys, values
        and tails of the frames before become those of the new ones too."""

    def new_keys_values(self, streams: int) -> Tensor:
        """(streams, layers, keys and values, heads, frames in sight, head width)"""

    def new_tails(self, streams: int) -> Tails:
        """The last inputs of every causal layer, each (streams, rows, channels); before the first push some are shorter
        than ever after."""


@dataclass(frozen=True, slots=True)
class Code2WavState:
    """All that a stream remembers, as plain tensors: enough to go on elsewhere."""

    frame_count: int
    # (layers, keys and values, heads, frames in sight, head width)
    keys_values: Tensor
    # The last inputs of every causal layer, each (1, rows, channels).
    tails: tuple[Tensor, ...]


class Code2WavStreams:
    """Room for as many streams as there ever were at one time; `push` and whatever reads states use one thread."""

    def __init__(self, decoder: FrameDecoder) -> None:
        self._decoder = decoder
        self._keys_values = decoder.new_keys_values(0)
        self._tails: Tails = []
        self._free: list[int] = []
        self._slots = 0

    def open(self) -> "Code2WavStream":
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        return Code2WavStream(self, heappop(self._free))

    def close(self, stream: "Code2WavStream") -> None:
        """Its room goes to the next; a push of it that is under way harms nobody, since first pushes read no state."""
        heappush(self._free, stream.slot)

    @torch.inference_mode()
    def push(self, streams: Sequence["Code2WavStream"], codes: Tensor) -> Tensor:
        """codes (streams, frames, quantizers), integers below the codebook size -> float32 (streams, samples) that are
        final now, on the CPU. Either all streams have been pushed to already or none has."""
        parts = torch.split(codes.to(self._keys_values.device, torch.int64), PUSH_FRAMES, 1)
        samples = [self._push(streams, part) for part in parts if part.shape[1]]
        return torch.cat(samples, 1).cpu() if samples else torch.empty(len(streams), 0)

    def _push(self, streams: Sequence["Code2WavStream"], codes: Tensor) -> Tensor:
        counts, has_state = [stream.frame_count for stream in streams], streams[0].has_state
        if any(stream.has_state != has_state for stream in streams):
            raise ValueError("Expected streams that all have frames or none; some have.")
        place = self._place([stream.slot for stream in streams])
        if has_state:
            keys_values, tails = self._keys_values[place], [tail[place] for tail in self._tails]
        else:
            keys_values, tails = self._decoder.new_keys_values(len(streams)), self._decoder.new_tails(len(streams))
        samples = self._decoder(codes, keys_values, torch.tensor(counts).to(codes.device), tails)
        self._keep(streams, place, keys_values, tails)
        for stream in streams:
            stream.advance(codes.shape[1])
        return samples

    def _place(self, slots: list[int]) -> slice | Tensor:
        """Where they lie; one stream's tensors are seen without a copy."""
        return slice(slots[0], slots[0] + 1) if len(slots) == 1 else torch.tensor(slots).to(self._keys_values.device)

    def _keep(
        self, streams: Sequence["Code2WavStream"], place: slice | Tensor, keys_values: Tensor, tails: Tails
    ) -> None:
        self._make_room(max(stream.slot for stream in streams) + 1, tails)
        self._keys_values[place] = keys_values
        for kept, tail in zip(self._tails, tails, strict=True):
            kept[place] = tail

    def _make_room(self, slots: int, tails: Tails) -> None:
        """tails: of streams with frames, whose shapes tell how long tails are."""
        room = len(self._keys_values)
        if slots <= room:
            return
        added = max(slots, 2 * room) - room
        self._keys_values = torch.cat((self._keys_values, self._decoder.new_keys_values(added)))
        before = self._tails or [tail[:0] for tail in tails]
        self._tails = [torch.cat((old, old.new_zeros(added, *old.shape[1:]))) for old in before]

    def export(self, stream: "Code2WavStream") -> Code2WavState:
        slot, count = stream.slot, stream.frame_count
        if not stream.has_state:
            return Code2WavState(0, self._decoder.new_keys_values(1)[0, :, :, :, :0], tuple(self._decoder.new_tails(1)))
        sight = self._keys_values.shape[4]
        seen = self._keys_values[slot, :, :, :, sight - min(count, sight) :].clone()
        return Code2WavState(count, seen, tuple(tail[slot : slot + 1].clone() for tail in self._tails))

    @torch.inference_mode()
    def restore(self, stream: "Code2WavStream", state: Code2WavState) -> None:
        """The stream has no frame yet."""
        stream.advance(state.frame_count)
        if stream.has_state:
            keys_values = self._decoder.new_keys_values(1)
            keys_values[0, :, :, :, keys_values.shape[4] - state.keys_values.shape[3] :] = state.keys_values
            tails = [tail.to(keys_values.device) for tail in state.tails]
            self._keep([stream], self._place([stream.slot]), keys_values, tails)


class Code2WavStream:
    """One speech, decoded as its frames come. Equal to one decode of all frames for any grouping of the pushes, on a
    CPU with float32 to the last bit (`row_products`)."""

    def __init__(self, streams: Code2WavStreams, slot: int) -> None:
        self.streams, self.slot = streams, slot
        # Of the speech.
        self.frame_count = 0
        self.has_state = False

    def begin_at(self, frame: int) -> None:
        """Before the first push: of a speech whose frames before this one do not come. The sound is that of the whole
        speech from as many frames on as it follows from."""
        self.frame_count = frame

    def advance(self, frames: int) -> None:
        self.frame_count += frames
        self.has_state = self.has_state or frames > 0

    def push(self, codes: Tensor) -> Tensor:
        """codes (n, quantizers), integers below the codebook size -> float32 samples that are final now, on the CPU."""
        return self.streams.push([self], codes[None])[0]

    def state(self) -> Code2WavState:
        """A copy, unharmed by later pushes."""
        return self.streams.export(self)

    def close(self) -> None:
        """Once; no push follows."""
        self.streams.close(self)


def push_together(streams: Sequence[Code2WavStream], codes: Tensor) -> Tensor:
    """Of one `Code2WavStreams`, at least one; as its `push`."""
    return streams[0].streams.push(streams, codes)
