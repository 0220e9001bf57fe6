"""The Talker's input rows: the user's prompt, nine rows that open the answer, and one row a frame.

As transformers lays them out (`_get_talker_assistant_parts`): the first token of the answer ends the opening, and frame k
brings the codes of frame k together with text token k + 1.
"""

from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .corpus import LEVELS, Batch
from .user_prompts import Users

OPENING_ROWS = 9


@dataclass(frozen=True)
class OpeningIds:
    """Token ids that open the assistant's turn (3), and of the codec: nothink, think bos, think eos, pad, bos, eos."""

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
    speakers: tuple[int, ...]


@dataclass(frozen=True)
class Laid:
    """rows (batch, n, width), packed to the left, and their positions float32 (3, batch, n); first_frame int64 (batch): the
    hidden row there predicts frame 0, the next one frame 1."""

    rows: Tensor
    positions: Tensor
    first_frame: Tensor


class TalkerModules(Protocol):
    """The parts of transformers' Talker that training calls."""

    text_projection: nn.Module
    hidden_projection: nn.Module
    model: nn.Module
    code_predictor: nn.Module
    codec_head: nn.Module


class TalkerRows:
    """Builds the rows of a batch from its text, its voice and codes (which need not be the true ones)."""

    def __init__(self, talker: TalkerModules, token_embedding: Tensor, ids: OpeningIds) -> None:
        """token_embedding (vocabulary, width) is the Thinker's, and stays as it is."""
        self._talker, self._tokens = talker, token_embedding
        tensor = torch.tensor
        self.device = token_embedding.device
        opening = [ids.codec_nothink, ids.codec_think_bos, ids.codec_think_eos, 0, ids.codec_pad, ids.codec_bos]
        self._opening = tensor(opening, device=self.device)
        self._special = tensor([ids.tts_bos, ids.tts_eos, ids.tts_pad], device=self.device)
        self._assistant = tensor(ids.assistant, device=self.device)
        self._speakers = tensor(ids.speakers, device=self.device)

    def build(self, users: Users, batch: Batch, history: Tensor) -> Laid:
        """history int64 (batch, frames, 16): the codes to read."""
        hidden = self._projected("hidden", users.hidden.to(self._tokens.dtype))
        user_rows = torch.where(users.media[..., None], hidden, self._text(users.ids))
        opening, trailing = self._answer(batch, history.shape[1])
        answer = torch.cat((opening, self.code_rows(history) + trailing), dim=1)
        last = users.positions.gather(1, (users.lengths - 1)[:, None, None].expand(-1, 1, 3))
        after = last + 1 + torch.arange(answer.shape[1], device=self.device)[None, :, None]
        source = _places(users, answer.shape[1])
        return Laid(
            rows=_taken(torch.cat((user_rows, answer), dim=1), source),
            positions=_taken(torch.cat((users.positions, after), dim=1), source).permute(2, 0, 1),
            first_frame=users.lengths + OPENING_ROWS - 1,
        )

    def code_rows(self, codes: Tensor) -> Tensor:
        """int64 (…, 16) -> the sum of their sixteen embeddings (…, width)"""
        rows = self._embedded_codes(codes[..., 0])
        for level in range(1, LEVELS):
            rows = rows + self.residual_rows(codes[..., level], level)
        return rows

    def residual_rows(self, codes: Tensor, level: int) -> Tensor:
        """int64 (…) of one level from 1 on -> (…, width)"""
        predictor = cast(nn.Module, self._talker.code_predictor.model)
        return F.embedding(codes, cast(nn.ModuleList, predictor.codec_embedding)[level - 1].weight)

    def _answer(self, batch: Batch, frames: int) -> tuple[Tensor, Tensor]:
        """The nine opening rows, and what each frame reads of the text (batch, frames, width)."""
        begin, end, silence = self._projected("text", self._tokens[self._special])
        spoken = self._text(batch.text)
        index = torch.arange(spoken.shape[1], device=spoken.device)[None, :, None]
        last = batch.text_lengths[:, None, None]
        text = torch.where(index < last, spoken, torch.where(index == last, end, silence))
        size = len(text)
        assistant = self._projected("text", self._tokens[self._assistant]).expand(size, -1, -1)
        over_codes = torch.cat((silence.expand(size, 4, -1), begin.expand(size, 1, -1), text[:, :1]), dim=1)
        opening = torch.cat((assistant, over_codes + self._opening_codes(batch.voices)), dim=1)
        missing = max(0, frames + 1 - text.shape[1])
        trailing = torch.cat((text[:, 1:], silence.expand(size, missing, -1)), dim=1)
        return opening, trailing[:, :frames]

    def _opening_codes(self, voices: Tensor) -> Tensor:
        """(batch, 6, width)"""
        codes = self._opening.repeat(len(voices), 1)
        codes[:, 3] = self._speakers[voices]
        return self._embedded_codes(codes)

    def _embedded_codes(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, cast(Tensor, cast(nn.Module, self._talker.model.codec_embedding).weight))

    def _text(self, ids: Tensor) -> Tensor:
        return self._projected("text", F.embedding(ids, self._tokens))

    def _projected(self, kind: str, rows: Tensor) -> Tensor:
        projection = self._talker.text_projection if kind == "text" else self._talker.hidden_projection
        return cast(Tensor, projection(rows))


def _places(users: Users, answer_rows: int) -> Tensor:
    """int64 (batch, all rows): what follows a user's rows moves up to their end; the last row fills the rest."""
    longest = users.ids.shape[1]
    length = longest + answer_rows
    to = torch.arange(length, device=users.ids.device).expand(len(users.ids), -1)
    own = users.lengths[:, None]
    return torch.where(to < own, to, (to + longest - own).clamp(max=length - 1))


def _taken(rows: Tensor, source: Tensor) -> Tensor:
    return rows.gather(1, source[..., None].expand(-1, -1, rows.shape[-1]))
