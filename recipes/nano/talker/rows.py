"""The Talker's input rows: the user's prompt, nine rows that open the answer, and one row a frame.

As transformers lays them out (`_get_talker_assistant_parts`): the first token of the answer ends the opening, and frame
k brings the codes of frame k together with text token k + 1.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .corpus import Batch
from .parts import TalkerParts
from .user_prompts import Users

OPENING_ROWS = 9


@dataclass(frozen=True)
class OpeningIds:
    """Token ids: the three that open the assistant's turn, those around what is to be said, and the codec's own."""

    assistant: tuple[int, int, int]
    tts_bos: int
    tts_eos: int
    tts_pad: int
    codec_nothink: int
    codec_think_bos: int
    codec_think_eos: int
    codec_pad: int
    codec_bos: int
    codec_eos: int
    speakers: tuple[int, ...]  # in the order of the voices' numbers


@dataclass(frozen=True)
class Laid:
    """Packed to the left; the last row fills the rest."""

    rows: Tensor  # (batch, rows, width)
    positions: Tensor  # float32 (3, batch, rows)
    first_frame: Tensor  # int64 (batch): the row that predicts frame 0; the next one predicts frame 1


class TalkerRows:
    """Builds the rows of a batch from its text, its voice and codes (which need not be the true ones)."""

    def __init__(self, parts: TalkerParts, token_embedding: Tensor, ids: OpeningIds) -> None:
        """token_embedding (vocabulary, width) is the Thinker's, and stays as it is."""
        self._parts, self._tokens, self.device = parts, token_embedding, token_embedding.device
        self._around = torch.tensor([ids.tts_bos, ids.tts_eos, ids.tts_pad], device=self.device)
        self._assistant = torch.tensor(ids.assistant, device=self.device)
        self._before_speaker = torch.tensor(
            [ids.codec_nothink, ids.codec_think_bos, ids.codec_think_eos], device=self.device
        )
        self._after_speaker = torch.tensor([ids.codec_pad, ids.codec_bos], device=self.device)
        self._speakers = torch.tensor(ids.speakers, device=self.device)

    def build(self, users: Users, batch: Batch, history: Tensor) -> Laid:
        """history int64 (batch, frames, 16): the codes to read."""
        hidden = _projected(self._parts.hidden_projection, users.hidden.to(self._tokens.dtype))
        user_rows = torch.where(users.media[..., None], hidden, self._text(users.ids))
        answer = self._answer(batch, history)
        last = users.positions.gather(1, (users.lengths - 1)[:, None, None].expand(-1, 1, 3))
        after = last + 1 + torch.arange(answer.shape[1], device=self.device)[None, :, None]
        places = _places(users, answer.shape[1])
        return Laid(
            rows=_taken(torch.cat((user_rows, answer), dim=1), places),
            positions=_taken(torch.cat((users.positions, after), dim=1), places).permute(2, 0, 1),
            first_frame=users.lengths + OPENING_ROWS - 1,
        )

    def _answer(self, batch: Batch, history: Tensor) -> Tensor:
        """(batch, 9 + frames, width)"""
        begin, end, silence = _projected(self._parts.text_projection, self._tokens[self._around])
        size, frames = history.shape[:2]
        text = self._ended(batch, end, silence)
        assistant = self._text(self._assistant).expand(size, -1, -1)
        over_codes = torch.cat((silence.expand(size, 4, -1), begin.expand(size, 1, -1), text[:, :1]), dim=1)
        opening_codes = self._parts.embedded(self._opening_codes(batch.voices), 0)
        read_later = text[:, 1 : frames + 1]
        unspoken = silence.expand(size, frames - read_later.shape[1], -1)
        spoken = self._parts.code_rows(history) + torch.cat((read_later, unspoken), dim=1)
        return torch.cat((assistant, over_codes + opening_codes, spoken), dim=1)

    def _ended(self, batch: Batch, end: Tensor, silence: Tensor) -> Tensor:
        """(batch, tokens + 1, width): the text, its end, and silence."""
        spoken = F.pad(self._text(batch.text), (0, 0, 0, 1))
        index = torch.arange(spoken.shape[1], device=self.device)[None, :, None]
        length = batch.text_lengths[:, None, None]
        return torch.where(index < length, spoken, torch.where(index == length, end, silence))

    def _opening_codes(self, voices: Tensor) -> Tensor:
        """int64 (batch, 6)"""
        before, after = (some.expand(len(voices), -1) for some in (self._before_speaker, self._after_speaker))
        return torch.cat((before, self._speakers[voices][:, None], after), dim=1)

    def _text(self, ids: Tensor) -> Tensor:
        return _projected(self._parts.text_projection, F.embedding(ids, self._tokens))


def _projected(projection: nn.Module, rows: Tensor) -> Tensor:
    return cast(Tensor, projection(rows))


def _places(users: Users, answer_rows: int) -> Tensor:
    """int64 (batch, all rows): what follows a user's rows moves up to their end; the last row fills the rest."""
    longest = users.ids.shape[1]
    length = longest + answer_rows
    to = torch.arange(length, device=users.ids.device).expand(len(users.ids), -1)
    own = users.lengths[:, None]
    return torch.where(to < own, to, (to + longest - own).clamp(max=length - 1))


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
