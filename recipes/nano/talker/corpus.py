"""All utterances that the Talker learns from, on the device, drawn at random by length and kind of sentence."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nano.domain.sentences import AnswerKind, kind_of_answer

from .codes import Coded
from .settings import TalkerSettings

LEVELS = 16
CODES = 256
# Of each first code in each voice, this many frames are remembered for their residual codes.
REMEMBERED_FRAMES = 64


@dataclass(frozen=True)
class Batch:
    """text int64 (batch, tokens), codes int64 (batch, frames, 16), padded with 0; lengths and voices int64 (batch)."""

    text: Tensor
    text_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    voices: Tensor


class Pool:
    """Rows of the corpus that fit one length, each with the weight that it is drawn by."""

    def __init__(self, capacity: int, frame_limit: int, device: torch.device) -> None:
        self.frame_limit = frame_limit
        self.members: list[int] = []
        self.weight = 0.0
        self._rows = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._cumulative = torch.full((capacity,), torch.inf, device=device)
        self._total = torch.zeros((), device=device)

    def publish(self, weights: Sequence[float]) -> None:
        """weights: of each member. Draws, which run on the device and never ask the host, see them from now on."""
        self.weight = sum(weights)
        self._rows[: len(self.members)] = torch.tensor(self.members, dtype=torch.int64)
        self._cumulative[: len(weights)] = torch.tensor(weights, dtype=torch.float64).cumsum(0).float()
        self._total.fill_(self.weight)

    def draw(self, count: int) -> Tensor:
        """int64 (count): rows, by their weights"""
        dice = torch.rand(count, device=self._rows.device) * self._total * (1 - 1e-6)
        return self._rows[torch.searchsorted(self._cumulative, dice, right=True)]


class Corpus:
    """Grows while it is drawn from."""

    def __init__(
        self,
        settings: TalkerSettings,
        tokenize: Callable[[str], Sequence[int]],
        voices: Sequence[str],
        capacity: int,
        device: torch.device,
    ) -> None:
        """voices: in the order of their numbers."""
        self._settings, self._tokenize, self._voices = settings, tokenize, list(voices)
        self.device, longest = device, max(settings.frame_limits)
        self._text = torch.zeros(capacity, settings.most_text_tokens, dtype=torch.int64, device=device)
        self._codes = torch.zeros(capacity, longest, LEVELS, dtype=torch.uint8, device=device)
        self._numbers = torch.zeros(3, capacity, dtype=torch.int64, device=device)  # tokens, frames, voice
        self.pools = [Pool(capacity, limit, device) for limit in sorted(settings.frame_limits)]
        self._kinds: list[AnswerKind] = []
        self._capacity = capacity
        self.residuals = Residuals(len(voices), device)

    @property
    def size(self) -> int:
        return len(self._kinds)

    def add(self, utterances: Iterable[Coded]) -> None:
        """Those that are too long, or for which there is no room, are left out."""
        for one in utterances:
            tokens = self._tokenize(one.text)
            pool = next((pool for pool in self.pools if len(one.codes) <= pool.frame_limit), None)
            fits = len(tokens) <= self._settings.most_text_tokens and self.size < self._capacity
            if pool is not None and fits:
                pool.members.append(self._keep(one, tokens))
        counts, shares = Counter(self._kinds), self._settings.shares
        for pool in self.pools:
            pool.publish([shares[self._kinds[row]] / counts[self._kinds[row]] for row in pool.members])

    def _keep(self, one: Coded, tokens: Sequence[int]) -> int:
        row, voice = self.size, self._voices.index(one.voice)
        codes = torch.from_numpy(one.codes)
        self._text[row, : len(tokens)] = torch.tensor(tokens)
        self._codes[row, : len(codes)] = codes
        self._numbers[:, row] = torch.tensor([len(tokens), len(codes), voice])
        self.residuals.remember(voice, codes)
        self._kinds.append(kind_of_answer(one.text))
        return row

    def draw(self, pool: Pool, count: int) -> Batch:
        return self.rows(pool.draw(count), pool.frame_limit)

    def rows(self, rows: Tensor, frame_limit: int) -> Batch:
        text_lengths, code_lengths, voices = self._numbers[:, rows]
        return Batch(self._text[rows], text_lengths, self._codes[rows, :frame_limit].long(), code_lengths, voices)


class Residuals:
    """What codes follow a first code in a voice: some frames of each, to stand in for one another."""

    def __init__(self, voices: int, device: torch.device) -> None:
        slots = (voices, CODES, REMEMBERED_FRAMES)
        self._frames = torch.zeros(*slots, LEVELS - 1, dtype=torch.uint8, device=device)
        self._filled = torch.zeros(slots, dtype=torch.bool, device=device)

    def remember(self, voice: int, codes: Tensor) -> None:
        """codes uint8 (frames, 16): each takes a place at random among those of its first code."""
        codes = codes.to(self._frames.device)
        places = voice, codes[:, 0].long(), torch.randint(REMEMBERED_FRAMES, (len(codes),), device=codes.device)
        self._frames[places] = codes[:, 1:]
        self._filled[places] = True

    def draw(self, voices: Tensor, first_codes: Tensor) -> tuple[Tensor, Tensor]:
        """voices int64 (batch), first codes int64 (batch, frames) -> codes (batch, frames, 15), and which were there."""
        slots = torch.randint(REMEMBERED_FRAMES, first_codes.shape, device=first_codes.device)
        places = voices[:, None].expand_as(first_codes), first_codes, slots
        return self._frames[places].long(), self._filled[places]
