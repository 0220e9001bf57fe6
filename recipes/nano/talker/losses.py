"""What the Talker is asked for: the first code of each frame or the end, and of some frames the other fifteen codes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.nano.model.architecture import CODEBOOK_SIZE
from recipes.nano.model.dense_experts import RouterBalance
from recipes.nano.model.text_model import run_text_model
from recipes.nano.training.step import Loss

from .code_predictor import residual_logits
from .corpus import Batch
from .history import History
from .parts import TalkerParts
from .residuals import Residuals
from .rows import TalkerRows
from .settings import TalkerSettings
from .user_prompts import UserPrompts, Users

PART_NAMES = ("first code", "residual codes", "first code right", "second code right")
RESIDUAL_WEIGHT, BALANCE_WEIGHT = 2.0, 0.01
# The first residual levels carry the words, the last ones noise.
LEVEL_WEIGHTS = (3, 2.5, 2, 1.6, 1.3, 1, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.2, 0.2)
# Share of the codes that the code predictor reads wrong.
PREDICTOR_NOISE = 0.08
IGNORED = -100


@dataclass(frozen=True)
class Answers:
    """What the Talker would say of each frame, and after the last one, if it had said the history."""

    logits: Tensor  # (batch, frames + 1, code vocabulary)
    hidden: Tensor  # (batch, frames + 1, width): what they come from


class TalkerLosses:
    """Losses of drawn batches; holds no weights of its own."""

    def __init__(
        self, parts: TalkerParts, rows: TalkerRows, end_code: int, residuals: Residuals, settings: TalkerSettings
    ) -> None:
        self._parts, self._rows, self._end, self._settings = parts, rows, end_code, settings
        self._history = History(residuals, settings.history, rows.device)
        weights = torch.tensor(LEVEL_WEIGHTS, device=rows.device)
        self._level_weights = weights / weights.mean()
        self._balance = RouterBalance(parts.text_model)

    def training(self, batch: Batch, prompts: UserPrompts) -> Loss:
        users = prompts.draw(len(batch.codes))
        with _computing(batch):
            history = self._history.unreliable(batch, self._own_first_codes(users, batch))
            answers = self.answers(users, batch, history)
            first, first_right = self._first_codes(answers.logits, batch)
            residual, second_right = self._residual_codes(answers.hidden, batch, PREDICTOR_NOISE)
        total = first + RESIDUAL_WEIGHT * residual + BALANCE_WEIGHT * self._balance.take()
        return Loss(total, torch.stack((first, residual, first_right, second_right)))

    @torch.no_grad()
    def held_out(self, batch: Batch, prompts: UserPrompts) -> Tensor:
        """float (4), as PART_NAMES, with the true history"""
        with _computing(batch):
            answers = self.answers(prompts.draw(len(batch.codes)), batch, batch.codes)
            first, first_right = self._first_codes(answers.logits, batch)
            residual, second_right = self._residual_codes(answers.hidden, batch, noise=0.0)
        return torch.stack((first, residual, first_right, second_right))

    def answers(self, users: Users, batch: Batch, history: Tensor) -> Answers:
        """history int64 (batch, frames, 16): the codes to read."""
        laid = self._rows.build(users, batch, history)
        hidden, _ = run_text_model(self._parts.text_model, laid.rows, laid.positions)
        index = laid.first_frame[:, None] + torch.arange(history.shape[1] + 1, device=hidden.device)
        of_frames = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        return Answers(self._parts.first_head(of_frames), of_frames)

    @torch.no_grad()
    def _own_first_codes(self, users: Users, batch: Batch) -> Tensor | None:
        """int64 (batch, frames): what the Talker draws after a history that is true but for its residual codes."""
        settings = self._settings.history
        if settings.most_own_first_codes == 0:
            return None
        logits = self.answers(users, batch, self._history.unreliable(batch, None)).logits
        scaled = logits[:, :-1, :CODEBOOK_SIZE].float() / settings.own_temperature
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noise = torch.rand_like(scaled).clamp(1e-9, 1 - 1e-7)
        return (scaled - (-noise.log()).log()).argmax(dim=-1)

    def _first_codes(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, and the share that is right."""
        wanted = self._wanted(batch)
        loss = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
        asked = wanted != IGNORED
        return loss, ((logits.argmax(dim=-1) == wanted) & asked).sum() / asked.sum()

    def _wanted(self, batch: Batch) -> Tensor:
        """int64 (batch, frames + 1): the first codes, the end after the last one, then nothing."""
        frames = torch.arange(batch.codes.shape[1] + 1, device=batch.codes.device)
        first = F.pad(batch.codes[..., 0], (0, 1))
        length = batch.code_lengths[:, None]
        # Filled tensors: a plain number would be copied from the host, which a captured step must not do.
        rest = torch.where(frames == length, torch.full_like(first, self._end), torch.full_like(first, IGNORED))
        return torch.where(frames < length, first, rest)

    def _residual_codes(self, hidden: Tensor, batch: Batch, noise: float) -> tuple[Tensor, Tensor]:
        """Loss over frames drawn at random from each utterance, and the share of level 1 that is right."""
        size, limit = batch.codes.shape[:2]
        count = max(2, round(limit * self._settings.residual_frame_share))
        chosen = (torch.rand(size, count, device=hidden.device) * batch.code_lengths[:, None]).long()
        codes = _of_frames(batch.codes, chosen)
        logits = residual_logits(self._parts, _of_frames(hidden, chosen), _misread(codes, noise)[:, :-1]).float()
        wanted = codes[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        right = (logits[:, 0].argmax(dim=-1) == wanted[:, 0]).float().mean()
        return (losses * self._level_weights).mean(), right


def _of_frames(values: Tensor, chosen: Tensor) -> Tensor:
    """values (batch, frames, n), chosen int64 (batch, some) -> (batch * some, n)"""
    return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1])).flatten(0, 1)


def _misread(codes: Tensor, share: float) -> Tensor:
    """int64 (n, 16): so many of the residual codes are any others."""
    wrong = torch.rand(codes.shape, device=codes.device) < share
    read = torch.where(wrong, torch.randint_like(codes, CODEBOOK_SIZE), codes)
    return torch.cat((codes[:, :1], read[:, 1:]), dim=1)


@contextmanager
def _computing(batch: Batch) -> Iterator[None]:
    """In bfloat16. A CPU attends to such short sequences faster by plain matrix products than by its flash kernel."""
    device = batch.codes.device.type
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False))
        if device == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
