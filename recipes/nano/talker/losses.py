"""What the Talker is asked for: the first code of each frame or the end, and of some frames the other fifteen codes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.nano.model.dense_experts import RouterBalance
from recipes.nano.model.text_model import run_text_model
from recipes.nano.training.step import Loss

from .corpus import CODES, LEVELS, Batch, Residuals
from .history import History
from .rows import TalkerModules, TalkerRows
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
    """logits (batch, frames + 1, code vocabulary) and the hidden rows (batch, frames + 1, width) that they come from"""

    logits: Tensor
    hidden: Tensor


class TalkerLosses:
    """Losses of drawn batches; holds no weights of its own."""

    def __init__(
        self, talker: TalkerModules, rows: TalkerRows, end_code: int, residuals: Residuals, settings: TalkerSettings
    ) -> None:
        self._talker, self._rows, self._end = talker, rows, end_code
        device = rows.device
        self._settings, self._history = settings, History(residuals, settings.history, device)
        weights = torch.tensor(LEVEL_WEIGHTS, device=device)
        self._level_weights = weights / weights.mean()
        self._balance = RouterBalance(talker.model)

    def training(self, batch: Batch, prompts: UserPrompts) -> Loss:
        users = prompts.draw(len(batch.codes))
        with _computing(batch):
            history = self._history.unreliable(batch, self._own_first_codes(batch, users))
            answers = self._answers(users, batch, history)
            first = self._first_code_loss(answers, batch)
            residual, second_right = self._residual_loss(answers.hidden, batch, PREDICTOR_NOISE)
        total = first + RESIDUAL_WEIGHT * residual + BALANCE_WEIGHT * self._balance.take()
        return Loss(total, torch.stack((first, residual, self._right(answers, batch), second_right)))

    @torch.no_grad()
    def held_out(self, batch: Batch, prompts: UserPrompts) -> Tensor:
        """float (4), as PART_NAMES, with the true history"""
        with _computing(batch):
            answers = self._answers(prompts.draw(len(batch.codes)), batch, batch.codes)
            residual, second_right = self._residual_loss(answers.hidden, batch, 0.0)
            first = self._first_code_loss(answers, batch)
        return torch.stack((first, residual, self._right(answers, batch), second_right))

    @torch.no_grad()
    def _own_first_codes(self, batch: Batch, users: Users) -> Tensor | None:
        """int64 (batch, frames): what the Talker draws after a history that is true but for its residual codes."""
        settings = self._settings.history
        if settings.most_own_first_codes == 0:
            return None
        answers = self._answers(users, batch, self._history.unreliable(batch, None))
        scaled = answers.logits[:, :-1, :CODES].float() / settings.own_temperature
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noise = torch.rand_like(scaled).clamp(1e-9, 1 - 1e-7)
        return (scaled - (-noise.log()).log()).argmax(dim=-1)

    def _answers(self, users: Users, batch: Batch, history: Tensor) -> Answers:
        laid = self._rows.build(users, batch, history)
        hidden, _ = run_text_model(self._talker.model, laid.rows, laid.positions)
        index = laid.first_frame[:, None] + torch.arange(history.shape[1] + 1, device=hidden.device)
        index = index.clamp(max=hidden.shape[1] - 1)
        of_frames = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        return Answers(cast(Tensor, self._talker.codec_head(of_frames)), of_frames)

    def _wanted(self, batch: Batch) -> Tensor:
        """int64 (batch, frames + 1): the first codes, the end after the last one, then nothing."""
        frames = torch.arange(batch.codes.shape[1] + 1, device=batch.codes.device)
        first = F.pad(batch.codes[..., 0], (0, 1))
        length = batch.code_lengths[:, None]
        # Filled tensors: a plain number would be copied from the host, which a captured step must not do.
        rest = torch.where(frames == length, torch.full_like(first, self._end), torch.full_like(first, IGNORED))
        return torch.where(frames < length, first, rest)

    def _first_code_loss(self, answers: Answers, batch: Batch) -> Tensor:
        wanted = self._wanted(batch).flatten()
        return F.cross_entropy(answers.logits.float().flatten(0, 1), wanted, ignore_index=IGNORED)

    def _right(self, answers: Answers, batch: Batch) -> Tensor:
        wanted = self._wanted(batch)
        asked = wanted != IGNORED
        return ((answers.logits.argmax(dim=-1) == wanted) & asked).sum() / asked.sum()

    def _residual_loss(self, hidden: Tensor, batch: Batch, noise: float) -> tuple[Tensor, Tensor]:
        """Over frames drawn at random from each utterance; the second value is how often level 1 is right."""
        size, limit = batch.codes.shape[:2]
        count = max(2, round(limit * self._settings.residual_frame_share))
        chosen = (torch.rand(size, count, device=hidden.device) * batch.code_lengths[:, None]).long()
        of_frame = hidden.gather(1, chosen[..., None].expand(-1, -1, hidden.shape[-1])).flatten(0, 1)
        codes = batch.codes.gather(1, chosen[..., None].expand(-1, -1, LEVELS)).flatten(0, 1)
        logits = self._predicted(of_frame, codes, noise).float()
        wanted = codes[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        right = (logits[:, 0].argmax(dim=-1) == wanted[:, 0]).float().mean()
        return (losses * self._level_weights).mean(), right

    def _predicted(self, hidden: Tensor, codes: Tensor, noise: float) -> Tensor:
        """hidden (n, width) and true codes (n, 16) -> logits (n, 15, codes) of levels 1 to 15"""
        wrong = torch.rand(codes.shape, device=codes.device) < noise
        read = torch.where(wrong, torch.randint_like(codes, CODES), codes)
        read = torch.cat((codes[:, :1], read[:, 1:]), dim=1)
        first = cast(nn.Module, self._talker.model.codec_embedding)(read[:, 0])
        later = [self._rows.residual_rows(read[:, level], level) for level in range(1, LEVELS - 1)]
        rows = torch.stack((hidden, first, *later), dim=1)
        out = self._predictor_rows(rows)[:, 1:]
        heads = torch.stack([head.weight for head in cast(Sequence[nn.Linear], self._talker.code_predictor.lm_head)])
        return torch.einsum("nlw,lcw->nlc", out, heads.to(out.dtype))

    def _predictor_rows(self, rows: Tensor) -> Tensor:
        """(n, 16, width) -> the same, after the code predictor's layers"""
        model = cast(nn.Module, self._talker.code_predictor.model)
        frequencies = cast(Tensor, cast(nn.Module, model.rotary_emb).inv_freq)
        angles = torch.arange(rows.shape[1], device=rows.device).float()[None, :, None] * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        turn = angles.cos().to(rows.dtype), angles.sin().to(rows.dtype)
        for layer in cast(nn.ModuleList, model.layers):
            output = layer(rows, attention_mask=None, position_embeddings=turn)
            rows = output[0] if isinstance(output, tuple) else output
        return cast(Tensor, cast(nn.Module, model.norm)(rows))


@contextmanager
def _computing(batch: Batch) -> Iterator[None]:
    """In bfloat16. A CPU attends to such short sequences faster by plain matrix products than by its flash kernel."""
    device = batch.codes.device.type
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False))
        if device == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
