"""What the Thinker is asked for: the next token of every answer, and of every recording what is said in it."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.nano.thinker.examples import Batch
from recipes.nano.thinker.media import Sounds
from recipes.nano.thinker.reading import Heard, autocast
from recipes.nano.training.ctc import ctc_loss

_IGNORED = -100


def answer_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy over all tokens that are learnt."""
    wanted = batch.ids[:, 1:].masked_fill(~batch.learnt[:, 1:], _IGNORED)
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED)


def right_answers(logits: Tensor, batch: Batch) -> Tensor:
    """bool (B): where every token of the last answer, its end too, is the likeliest after those before it."""
    places = torch.arange(1, batch.ids.shape[1], device=batch.ids.device)
    asked = batch.learnt[:, 1:] & (places >= batch.last_answers[:, None])
    return ((logits[:, :-1].argmax(dim=-1) == batch.ids[:, 1:]) | ~asked).all(dim=1)


class Transcriber(nn.Module):
    """Reads what is said off the audio encoder's rows, without the text model; only training has it."""

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.blank = vocabulary_size
        self.head = nn.Linear(width, vocabulary_size + 1)

    def loss(self, heard: Heard, sounds: Tensor, bank: Sounds) -> Tensor:
        """Mean over the recordings among `sounds` int64 (n) of the CTC loss a token; 0 if there are none."""
        with autocast(heard.rows.device):
            logits = cast(Tensor, self.head(heard.rows))
        lengths = bank.transcript_lengths[sounds]
        losses = ctc_loss(
            logits.float().log_softmax(dim=-1), bank.transcripts[sounds], heard.counts, lengths, self.blank
        )
        says_something = lengths > 0
        return (losses / lengths.clamp(min=1) * says_something).sum() / says_something.sum().clamp(min=1)
