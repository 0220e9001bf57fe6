"""One step of the Talker: slices of requests become packed rows; rows that sample become whole frames of codes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.runner import Outcome, no_number
from antiphon.engine.sampler import NO_ID, Sampler, drawing
from antiphon.engine.sequence import Slice
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.config import TalkerConfig
from antiphon.model.talker import Talker
from services.talker.request import OPENING_ROWS, Frame, TalkerRequest

TalkerSlice = Slice[TalkerRequest]


@dataclass(frozen=True, slots=True)
class TalkerRunner:
    talker: Talker
    config: TalkerConfig
    keys_values: PagedKeyValues
    sampler: Sampler

    @classmethod
    def of(cls, talker: Talker, config: TalkerConfig, keys_values: PagedKeyValues) -> "TalkerRunner":
        return cls(talker, config, keys_values, Sampler(talker.suppressed_code_ids))

    @property
    def _device(self) -> torch.device:
        return self.keys_values.keys.device

    @torch.inference_mode()
    def run(self, slices: list[TalkerSlice]) -> list[Outcome[Frame]]:
        packed = [PackedRows(each.first_row, each.row_count, each.pages) for each in slices]
        batch = PackedBatch.build(packed, self.keys_values)
        hidden = self.talker.forward(self._rows(slices), self._positions(slices), batch, self.keys_values)
        outcomes: list[Outcome[Frame]] = [Outcome()] * len(slices)
        sampling = [index for index, each in enumerate(slices) if each.samples]
        if sampling:
            last = hidden[torch.tensor([batch.last_places[index] for index in sampling], device=self._device)]
            spoken = self._speak([slices[index].sequence.request for index in sampling], last)
            for index, outcome in zip(sampling, spoken, strict=True):
                outcomes[index] = outcome
        return outcomes

    def release(self, request: TalkerRequest) -> None:
        """Nothing is kept of a request beside its pages."""

    def _speak(self, requests: list[TalkerRequest], hidden: Tensor) -> list[Outcome[Frame]]:
        """hidden (requests, width) of the last rows -> a frame each, or the end of the speech."""
        logits = self.talker.code_logits(hidden)
        first_codes = self.sampler.sample(logits, [request.sampling for request in requests])
        going = [place for place, code in enumerate(first_codes) if code not in (self.config.codec_eos_id, NO_ID)]
        outcomes: list[Outcome[Frame]] = [
            no_number("Talker") if code == NO_ID else Outcome(finish_reason="stop") for code in first_codes
        ]
        if going:
            codes = torch.tensor([first_codes[place] for place in going], device=self._device)
            rows = hidden if len(going) == len(requests) else hidden[torch.tensor(going, device=self._device)]
            frames = self._frames([requests[place] for place in going], rows, codes)
            for place, outcome in zip(going, frames, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _frames(self, requests: list[TalkerRequest], hidden: Tensor, first_codes: Tensor) -> list[Outcome[Frame]]:
        residual_groups = self.config.code_groups - 1
        draw = drawing([request.residual_sampling for request in requests], self._device)
        uniforms = torch.tensor([request.uniforms(residual_groups) for request in requests]).to(self._device)
        codes, sums = self.talker.code_predictor.predict(
            hidden, first_codes, lambda logits, group: draw(logits, uniforms[:, group - 1])
        )
        frames = codes.to(torch.int16).cpu().numpy()
        return [
            Outcome((frame,), request.speak(frame, embedding_sum))
            for request, frame, embedding_sum in zip(requests, frames, sums, strict=True)
        ]

    def _positions(self, slices: list[TalkerSlice]) -> Tensor:
        """(3, rows)"""
        stops = np.cumsum([each.row_count for each in slices])
        positions = np.empty((3, int(stops[-1])), np.float32)
        for each, stop in zip(slices, stops.tolist(), strict=True):
            each.sequence.request.write_positions(each.first_row, positions[:, stop - each.row_count : stop])
        return torch.from_numpy(positions).to(self._device)

    def _rows(self, slices: list[TalkerSlice]) -> Tensor:
        """(rows, width). Requests that go on by one frame share one projection of their text."""
        going = [index for index, each in enumerate(slices) if _goes_on(each)]
        continued = self._next_rows([slices[index].sequence.request for index in going]) if going else None
        if continued is not None and len(going) == len(slices):
            return continued
        parts: list[Tensor | None] = [None] * len(slices)
        if continued is not None:
            for index, row in zip(going, torch.split(continued, 1), strict=True):
                parts[index] = row
        each_part = zip(slices, parts, strict=True)
        return torch.cat([self._rows_of(each) if part is None else part for each, part in each_part])

    def _next_rows(self, requests: list[TalkerRequest]) -> Tensor:
        """The row after the latest frame of each request, (requests, width)."""
        sums = [request.latest_sum for request in requests if request.latest_sum is not None]
        texts = [request.text.id_at(len(request.frames)) for request in requests]
        return torch.stack(sums) + self.talker.text_rows(self._ids(texts))

    def _rows_of(self, part: TalkerSlice) -> Tensor:
        """Rows of the prompt, or of a request that is computed again, (rows, width)."""
        request = part.sequence.request
        first, stop = part.first_row, part.first_row + part.row_count
        opening, text = request.user_rows, request.user_rows + OPENING_ROWS
        parts = []
        if first < opening:
            parts.append(self._user_rows(request, first, min(stop, opening)))
        if first < text and stop > opening:
            rows = self.talker.assistant_rows(request.prefix_ids, request.speaker_id)
            parts.append(rows[max(first - opening, 0) : stop - opening])
        if first <= text < stop:
            parts.append(self.talker.first_text_row(request.text.id_at(0)))
        if stop > request.prompt_rows:
            parts.append(self._frame_rows(request, max(first - request.prompt_rows, 0), stop - request.prompt_rows))
        return torch.cat(parts)

    def _user_rows(self, request: TalkerRequest, first: int, stop: int) -> Tensor:
        rows = self.talker.text_rows(torch.from_numpy(request.prompt.token_ids[first:stop]).to(self._device))
        accepted = request.accepted
        begin, end = np.searchsorted(accepted.prompt_rows, (first, stop)).tolist()
        if begin < end:
            places = torch.from_numpy(accepted.prompt_rows[begin:end] - first).to(self._device)
            rows[places] = self.talker.hidden_rows(accepted.rows[begin:end].to(self._device))
        return rows

    def _frame_rows(self, request: TalkerRequest, first: int, stop: int) -> Tensor:
        """Rows after frames [first, stop)."""
        codes = torch.from_numpy(np.stack(request.frames[first:stop]).astype(np.int64)).to(self._device)
        texts = self._ids([request.text.id_at(frame + 1) for frame in range(first, stop)])
        return self.talker.code_predictor.embedding_sums(codes) + self.talker.text_rows(texts)

    def _ids(self, ids: list[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self._device)


def _goes_on(part: TalkerSlice) -> bool:
    """Its one row is that of the latest frame."""
    request = part.sequence.request
    return part.row_count == 1 and part.samples and part.first_row >= request.prompt_rows
