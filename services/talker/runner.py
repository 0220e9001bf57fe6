"""One step of the Talker: slices of requests become packed rows; rows that sample become whole frames of codes."""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.decode_steps import DecodeCompute, DecodeRow, DecodeSteps
from antiphon.engine.prefill_steps import PrefillCompute, PrefillStep, PrefillSteps, RowNumbers
from antiphon.engine.runner import Outcome, no_number
from antiphon.engine.sampler import NO_ID, Sampler
from antiphon.engine.sequence import Sequence, Slice
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues, StepAttention
from antiphon.model.config import TalkerConfig
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.placement import Moment, OwnStream, fetched, sent, sent_tensor
from antiphon.model.talker import Talker
from services.talker.frame_steps import FrameSteps
from services.talker.request import OPENING_ROWS, Frame, TalkerRequest

TalkerSlice = Slice[TalkerRequest]
TalkerOutcomes = list[Outcome[Frame]]
# Hidden rows (requests, width) and the logits of their first codes (requests, code vocabulary).
Decoded = tuple[Tensor, Tensor]
# On the device: a frame is short, and its listener is hearing the one before it.
_URGENCY: Final = 1


class TalkerRunner:
    def __init__(
        self,
        talker: Talker,
        config: TalkerConfig,
        keys_values: PagedKeyValues,
        frame_steps: FrameSteps,
        decode_steps: DecodeSteps[Decoded] | None = None,
        prefill_steps: PrefillSteps[Tensor] | None = None,
    ) -> None:
        """decode_steps: of `decoding(talker)`, for steps in which every request goes on by one frame. prefill_steps: of
        `prefilling(talker)`, for what fits of all others."""
        self._talker, self._config, self._keys_values = talker, config, keys_values
        self._frame_steps, self._decode_steps, self._prefill_steps = frame_steps, decode_steps, prefill_steps
        self._sampler = Sampler(talker.suppressed_code_ids)
        self._device = keys_values.keys.device
        self._stream = OwnStream.on(self._device, urgency=_URGENCY)

    @classmethod
    def of(cls, talker: Talker, config: TalkerConfig, keys_values: PagedKeyValues) -> "TalkerRunner":
        return cls(talker, config, keys_values, FrameSteps(talker.code_predictor))

    def run(self, slices: list[TalkerSlice]) -> TalkerOutcomes:
        return self.launch(slices)()

    @torch.inference_mode()
    def launch(self, slices: list[TalkerSlice]) -> Callable[[], TalkerOutcomes]:
        with self._stream.entered():
            return self._launch(slices)

    def _launch(self, slices: list[TalkerSlice]) -> Callable[[], TalkerOutcomes]:
        decoded = self._decoded(slices)
        hidden, logits = self._prefilled(slices) if decoded is None else decoded
        requests = [each.sequence.request for each in slices if each.samples]
        if not requests:
            return lambda: [Outcome()] * len(slices)
        first_codes = self._sampler.draw(logits, [request.sampling for request in requests])
        return partial(_outcomes, slices, self._speak(requests, hidden, first_codes), self._config.codec_eos_id)

    def release(self, request: TalkerRequest) -> None:
        """Nothing is kept of a request beside its pages."""

    def _speak(self, requests: list[TalkerRequest], hidden: Tensor, first_codes: Tensor) -> Callable[[], Tensor]:
        """hidden (requests, width) and what was drawn for them -> int16 (requests, 1 + code groups), on its way: what
        was drawn, and a frame, which means nothing where that is no code.

        Of a speech that has just ended it is computed for nothing, because only the device knows; under overlap so is
        the one after it. A CPU knows, too, and spares it where nobody in the step goes on."""
        if first_codes.is_cpu and self._all_end(requests, first_codes):
            return lambda: first_codes.unsqueeze(1).to(torch.int16)
        groups = self._config.code_groups - 1
        uniforms, sampling = zip(*((each.uniforms(groups), each.residual_sampling) for each in requests), strict=True)
        begun = Moment(self._device)
        codes, sums = self._frame_steps.run(hidden, first_codes.clamp(min=0), list(uniforms), sampling)
        ended = Moment(self._device)
        for request, embedding_sum in zip(requests, sums.unbind(), strict=True):
            request.latest_sum = embedding_sum
        arriving = fetched(torch.cat((first_codes.unsqueeze(1), codes), 1).to(torch.int16))
        return partial(_timed, arriving, requests, begun, ended)

    def _all_end(self, requests: list[TalkerRequest], first_codes: Tensor) -> bool:
        """And could be computed once more, as a step that has begun meanwhile does."""
        has_frames = all(request.latest_sum is not None for request in requests)
        return has_frames and all(code == self._config.codec_eos_id for code in first_codes.tolist())

    def _decoded(self, slices: list[TalkerSlice]) -> Decoded | None:
        """By a step of fixed shape; None when none fits what is to be done."""
        if self._decode_steps is None or not all(_goes_on(each) for each in slices):
            return None
        requests = [each.sequence.request for each in slices]
        rows = [
            DecodeRow(row, each.pages, request.position(row), request.text_beside(row))
            for each, request, row in zip(slices, requests, (each.first_row for each in slices), strict=True)
        ]
        step = self._decode_steps.fitting(rows)
        if step is None:
            return None
        hidden, logits = step.run(rows, _latest_sums(requests))
        return hidden.narrow(0, 0, len(rows)), logits.narrow(0, 0, len(rows))

    def _prefilled(self, slices: list[TalkerSlice]) -> Decoded:
        """Of the slices that sample."""
        packed = [PackedRows(each.first_row, each.row_count, each.pages) for each in slices]
        step = None if self._prefill_steps is None else self._prefill_steps.fitting(packed)
        hidden = self._packed(slices, packed) if step is None else self._fixed(step, slices, packed)
        return hidden, self._talker.code_logits(hidden)

    def _packed(self, slices: list[TalkerSlice], packed: list[PackedRows]) -> Tensor:
        """In free shapes."""
        numbers, batch = _row_numbers(slices), PackedBatch.build(packed, self._keys_values)
        positions = sent(numbers.positions, self._device)
        hidden = self._talker.forward(self._rows(slices), positions, batch, self._keys_values)
        if numbers.sampled != list(range(len(hidden))):
            hidden = hidden.index_select(0, sent(np.array(numbers.sampled, dtype=np.int64), self._device))
        return hidden

    def _fixed(self, step: PrefillStep[Tensor], slices: list[TalkerSlice], packed: list[PackedRows]) -> Tensor:
        numbers = _row_numbers(slices)
        step.put(packed, numbers)
        step.fill(self._rows(slices))
        return step.compute().index_select(0, step.sampled(len(numbers.sampled)))

    def _rows(self, slices: list[TalkerSlice]) -> Tensor:
        """(rows, width). Requests that go on by one frame share one projection of their text."""
        going = [index for index, each in enumerate(slices) if _goes_on(each)]
        continued = self._next_rows([slices[index] for index in going]) if going else None
        if continued is not None and len(going) == len(slices):
            return continued
        parts: list[Tensor | None] = [None] * len(slices)
        if continued is not None:
            for index, row in zip(going, torch.split(continued, 1), strict=True):
                parts[index] = row
        each_part = zip(slices, parts, strict=True)
        return torch.cat([self._rows_of(each) if part is None else part for each, part in each_part])

    def _next_rows(self, slices: list[TalkerSlice]) -> Tensor:
        """The row after the latest frame of each request, (requests, width)."""
        texts = [each.sequence.request.text_beside(each.first_row) for each in slices]
        sums = _latest_sums([each.sequence.request for each in slices])
        return torch.stack(sums) + self._talker.text_rows(self._ids(texts))

    def _rows_of(self, part: TalkerSlice) -> Tensor:
        """Rows of the prompt, or of a request that is computed again, (rows, width)."""
        request = part.sequence.request
        first, stop = part.first_row, part.first_row + part.row_count
        opening, text = request.user_rows, request.user_rows + OPENING_ROWS
        parts = []
        if first < opening:
            parts.append(self._user_rows(request, first, min(stop, opening)))
        if first < text and stop > opening:
            rows = self._talker.assistant_rows(request.prefix_ids, request.speaker_id)
            parts.append(rows[max(first - opening, 0) : stop - opening])
        if first <= text < stop:
            parts.append(self._talker.first_text_row(request.text.id_at(0)))
        if stop > request.prompt_rows:
            parts.append(self._frame_rows(request, max(first - request.prompt_rows, 0), stop - request.prompt_rows))
        return torch.cat(parts)

    def _user_rows(self, request: TalkerRequest, first: int, stop: int) -> Tensor:
        rows = self._talker.text_rows(sent(request.prompt.token_ids[first:stop], self._device))
        accepted = request.accepted
        begin, end = np.searchsorted(accepted.prompt_rows, (first, stop)).tolist()
        if begin < end:
            places = sent(accepted.prompt_rows[begin:end] - first, self._device)
            hidden = sent_tensor(accepted.rows[begin:end], self._device)
            rows.index_copy_(0, places, self._talker.hidden_rows(hidden))
        return rows

    def _frame_rows(self, request: TalkerRequest, first: int, stop: int) -> Tensor:
        """Rows after frames [first, stop)."""
        codes = sent(np.stack(request.frames[first:stop]).astype(np.int64), self._device)
        texts = self._ids([request.text.id_at(frame + 1) for frame in range(first, stop)])
        return self._talker.code_predictor.embedding_sums(codes) + self._talker.text_rows(texts)

    def _ids(self, ids: list[int]) -> Tensor:
        return sent(np.array(ids, dtype=np.int64), self._device)


def decoding(talker: Talker, keys_values: PagedKeyValues) -> DecodeCompute[Decoded]:
    """What one more frame of some requests begins with; they are fed the sums of their latest frames."""

    def compute(fed: Tensor, token_ids: Tensor, positions: Tensor, batch: DecodeBatch) -> Decoded:
        hidden = talker.forward(fed + talker.text_rows(token_ids), positions, batch, keys_values)
        return hidden, talker.code_logits(hidden)

    return compute


def prefilling(talker: Talker, keys_values: PagedKeyValues) -> PrefillCompute[Tensor]:
    """Hidden rows (rows, width)."""

    def compute(rows: Tensor, positions: Tensor, batch: StepAttention) -> Tensor:
        return talker.forward(rows, positions, batch, keys_values)

    return compute


def _row_numbers(slices: list[TalkerSlice]) -> RowNumbers:
    """Rows of the Talker are not made of ids alone."""
    stops = np.cumsum([each.row_count for each in slices]).tolist()
    positions = np.empty((3, stops[-1]), np.float32)
    for each, stop in zip(slices, stops, strict=True):
        each.sequence.request.write_positions(each.first_row, positions[:, stop - each.row_count : stop])
    sampled = [stop - 1 for each, stop in zip(slices, stops, strict=True) if each.samples]
    return RowNumbers(np.zeros(stops[-1], np.int64), positions, sampled)


def _timed(arriving: Callable[[], Tensor], requests: list[TalkerRequest], begun: Moment, ended: Moment) -> Tensor:
    """Waits for the frames; tells each request how long its residual codes took."""
    frames = arriving()
    for request in requests:
        request.residual_codes_ms += begun.ms_until(ended)
    return frames


def _latest_sums(requests: list[TalkerRequest]) -> list[Tensor]:
    return [request.latest_sum for request in requests if request.latest_sum is not None]


def _outcomes(slices: list[TalkerSlice], spoken: Callable[[], Tensor], end_code: int) -> TalkerOutcomes:
    """Waits for what was computed. Who has ended meanwhile gets nothing more."""
    rows = iter(spoken().numpy())
    return [_outcome(each.sequence, next(rows), end_code) if each.samples else Outcome() for each in slices]


def _outcome(sequence: Sequence[TalkerRequest], spoken: NDArray[np.int16], end_code: int) -> Outcome[Frame]:
    if sequence.phase == "ended":
        return Outcome()
    if spoken[0] == NO_ID:
        return no_number("Talker")
    if spoken[0] == end_code:
        return Outcome(finish_reason="stop")
    frame = spoken[1:]
    return Outcome((frame,), sequence.request.speak(frame))


def _goes_on(part: TalkerSlice) -> bool:
    """Its one row is that of the latest frame, which was spoken here."""
    request = part.sequence.request
    spoken_here = request.latest_sum is not None and part.first_row >= request.prompt_rows
    return part.row_count == 1 and part.samples and spoken_here
