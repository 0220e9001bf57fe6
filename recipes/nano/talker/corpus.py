"""All utterances that the Talker learns from, on the device, drawn at random by length and kind of sentence."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nano.domain.sentences import AnswerKind
from recipes.nano.errors import RecipeError
from recipes.nano.model.architecture import CODE_GROUPS

from .codes import Coded, Codes
from .residuals import Residuals
from .settings import TalkerSettings


@dataclass(frozen=True)
class Legend:
    """What texts and voices are in numbers, and of which kind a text is."""

    tokenize: Callable[[str], Sequence[int]]
    kind_of: Callable[[str], AnswerKind]
    voices: Sequence[str]

    def voice(self, name: str) -> int:
        if name not in self.voices:
            raise RecipeError(f"Expected speech of the voices {', '.join(self.voices)}; found one of {name}.")
        return self.voices.index(name)


@dataclass(frozen=True)
class Batch:
    """Padded with zeros, text to the longest there may be, codes to the length of their pool."""

    text: Tensor  # int64 (batch, tokens)
    text_lengths: Tensor  # int64 (batch)
    codes: Tensor  # int64 (batch, frames, 16)
    code_lengths: Tensor  # int64 (batch)
    voices: Tensor  # int64 (batch)


class Pool:
    """Rows of the corpus that are padded to one length, each with the weight that it is drawn by."""

    def __init__(self, frame_limit: int, weights: Mapping[int, float], device: torch.device) -> None:
        """weights: of each row"""
        self.frame_limit, self.weight = frame_limit, sum(weights.values())
        cumulative = torch.tensor([*weights.values()], dtype=torch.float64).cumsum(0).float()
        self._rows = torch.tensor([*weights], dtype=torch.int64, device=device)
        self._cumulative = cumulative.to(device)

    def draw(self, count: int) -> Tensor:
        """int64 (count): rows, by their weights; on the device, without asking the host."""
        # Rounding must not reach the end.
        dice = torch.rand(count, device=self._rows.device) * (self.weight * (1 - 1e-6))
        return self._rows[torch.searchsorted(self._cumulative, dice, right=True)]


@dataclass(frozen=True)
class _Line:
    """An utterance that fits."""

    tokens: Sequence[int]
    kind: AnswerKind
    voice: int
    codes: Codes


class Corpus:
    """Draws happen on the device and never ask the host."""

    def __init__(
        self, utterances: Sequence[Coded], legend: Legend, settings: TalkerSettings, device: torch.device
    ) -> None:
        """Leaves out what is too long. Raises RecipeError where nothing is left, or a voice is not in the legend."""
        self.device = device
        lines = list(_fitting(utterances, legend, settings))
        if not lines:
            raise RecipeError(
                f"None of {len(utterances)} utterances fits into {max(settings.frame_limits)} frames and "
                f"{settings.most_text_tokens} tokens; raise talker.frame_limits or talker.most_text_tokens."
            )
        self.size = len(lines)
        self.pools = _pools(lines, settings, device)
        self.residuals = Residuals([(line.voice, line.codes) for line in lines], settings.training.seed, device)
        self._everything = _padded(lines, settings, device)

    def draw(self, pool: Pool, count: int) -> Batch:
        return self.rows(pool.draw(count), pool.frame_limit)

    def rows(self, rows: Tensor, frame_limit: int) -> Batch:
        held = self._everything
        return Batch(
            text=held.text[rows],
            text_lengths=held.text_lengths[rows],
            codes=held.codes[rows, :frame_limit].long(),
            code_lengths=held.code_lengths[rows],
            voices=held.voices[rows],
        )


def _fitting(utterances: Iterable[Coded], legend: Legend, settings: TalkerSettings) -> Iterable[_Line]:
    for one in utterances:
        tokens = legend.tokenize(one.text)
        if 0 < len(one.codes) <= max(settings.frame_limits) and len(tokens) <= settings.most_text_tokens:
            yield _Line(tokens, legend.kind_of(one.text), legend.voice(one.voice), one.codes)


def _pools(lines: Sequence[_Line], settings: TalkerSettings, device: torch.device) -> list[Pool]:
    """One for each limit, of what fits into it and not into a shorter one. A kind's share is of all pools together."""
    counts = Counter(line.kind for line in lines)
    pools, shorter = [], 0
    for limit in sorted(settings.frame_limits):
        fitting = ((row, line.kind) for row, line in enumerate(lines) if shorter < len(line.codes) <= limit)
        weights = {row: settings.shares.of(kind) / counts[kind] for row, kind in fitting}
        pools.append(Pool(limit, weights, device))
        shorter = limit
    return pools


def _padded(lines: Sequence[_Line], settings: TalkerSettings, device: torch.device) -> Batch:
    """All lines; codes uint8, to save room."""
    text = torch.zeros(len(lines), settings.most_text_tokens, dtype=torch.int64)
    codes = torch.zeros(len(lines), max(settings.frame_limits), CODE_GROUPS, dtype=torch.uint8)
    for row, line in enumerate(lines):
        text[row, : len(line.tokens)] = torch.tensor(line.tokens)
        codes[row, : len(line.codes)] = torch.from_numpy(line.codes)
    return Batch(
        text=text.to(device),
        text_lengths=torch.tensor([len(line.tokens) for line in lines], device=device),
        codes=codes.to(device),
        code_lengths=torch.tensor([len(line.codes) for line in lines], device=device),
        voices=torch.tensor([line.voice for line in lines], device=device),
    )
