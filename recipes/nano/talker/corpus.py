"""All utterances that the Talker learns from, on the device, drawn at random by length and kind of sentence."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Rows of the corpus that fit one length: of the domain's sentences and of random phrases."""

    def __init__(self, capacity: int, frame_limit: int, device: torch.device) -> None:
        self.frame_limit = frame_limit
        self._rows = torch.zeros(2, capacity, dtype=torch.int64, device=device)
        self._counts = torch.zeros(2, device=device)
        self.sizes = [0, 0]

    def add(self, row: int, *, of_domain: bool) -> None:
        kind = int(of_domain)
        self._rows[kind, self.sizes[kind]] = row
        self.sizes[kind] += 1

    def publish(self) -> None:
        """Lets draws see what was added; they run on the device and never ask the host."""
        self._counts.copy_(torch.tensor(self.sizes, dtype=self._counts.dtype))

    def draw(self, count: int, domain_share: float) -> Tensor:
        """int64 (count): rows, the domain's in their share; where one kind is missing, the other."""
        dice = torch.rand(2, count, device=self._rows.device)
        from_domain = ((dice[0] < domain_share) & (self._counts[1] > 0)) | (self._counts[0] == 0)
        kind = from_domain.long()
        return self._rows[kind, (dice[1] * self._counts[kind]).long()]


class Corpus:
    """Grows while it is drawn from."""

    def __init__(
        self,
        settings: TalkerSettings,
        tokenize: Callable[[str], Sequence[int]],
        voices: Sequence[str],
        domain: frozenset[str],
        capacity: int,
        device: torch.device,
    ) -> None:
        """voices: in the order of their numbers; domain: the sentences that nano answers, phrases aside."""
        self._settings, self._tokenize, self._voices, self._domain = settings, tokenize, list(voices), domain
        self.device, longest = device, max(settings.frame_limits)
        self._text = torch.zeros(capacity, settings.most_text_tokens, dtype=torch.int64, device=device)
        self._codes = torch.zeros(capacity, longest, LEVELS, dtype=torch.uint8, device=device)
        self._numbers = torch.zeros(3, capacity, dtype=torch.int64, device=device)  # tokens, frames, voice
        self.pools = [Pool(capacity, limit, device) for limit in sorted(settings.frame_limits)]
        self.size, self._capacity = 0, capacity
        self.residuals = Residuals(len(voices), device)

    @property
    def full(self) -> bool:
        return self.size == self._capacity

    def add(self, utterances: Iterable[Coded]) -> None:
        """Those that are too long, or for which there is no room, are left out."""
        for one in utterances:
            tokens = self._tokenize(one.text)
            pool = next((pool for pool in self.pools if len(one.codes) <= pool.frame_limit), None)
            if pool is None or len(tokens) > self._settings.most_text_tokens or self.full:
                continue
            pool.add(self._keep(one, tokens), of_domain=one.text in self._domain)
        for pool in self.pools:
            pool.publish()

    def _keep(self, one: Coded, tokens: Sequence[int]) -> int:
        row, voice = self.size, self._voices.index(one.voice)
        codes = torch.from_numpy(one.codes)
        self._text[row, : len(tokens)] = torch.tensor(tokens)
        self._codes[row, : len(codes)] = codes
        self._numbers[:, row] = torch.tensor([len(tokens), len(codes), voice])
        self.residuals.remember(voice, codes)
        self.size += 1
        return row

    def draw(self, pool: Pool, count: int) -> Batch:
        return self.rows(pool.draw(count, self._settings.domain_share), pool.frame_limit)

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
        """voices int64 (batch), first codes int64 (batch, frames) -> codes (batch, frames, 15), and whether one was there."""
        slots = torch.randint(REMEMBERED_FRAMES, first_codes.shape, device=first_codes.device)
        places = voices[:, None].expand_as(first_codes), first_codes, slots
        return self._frames[places].long(), self._filled[places]
