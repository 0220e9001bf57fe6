"""The Talker: rows of the conversation, text tokens and codes to the first code of each frame of speech."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.attention import PagedKeyValues, StepAttention
from antiphon.model.code_predictor import CodePredictor
from antiphon.model.config import OmniConfig
from antiphon.model.decoder import Decoder
from antiphon.model.experts import local_experts
from antiphon.model.layers import Projection
from antiphon.model.placement import sent
from antiphon.model.weights import Checkpoint

PREFIX = "talker.model."
# The last ids of the codec vocabulary are control ids; of them only the end of speech may be chosen.
CONTROL_IDS = 1024


class Talker:
    """Holds its own weights and, of the Thinker, the token embedding; the caller runs it under torch.inference_mode."""

    def __init__(
        self,
        config: OmniConfig,
        decoder: Decoder,
        projections: tuple[Projection, Projection],
        tables: tuple[Tensor, Tensor, Tensor],
        code_predictor: CodePredictor,
    ) -> None:
        """projections: of text and of hidden rows; tables: token embedding, code embedding, code head."""
        self._config = config.require_talker()
        self._decoder, self.code_predictor = decoder, code_predictor
        self._text_projection, self._hidden_projection = projections
        self._token_embedding, self._code_embedding, self._code_head = tables
        with torch.inference_mode():
            special = self.text_rows(self._ids([config.tts_pad_id, config.tts_bos_id, config.tts_eos_id]))
        # Each (1, width): silence in the text, its beginning and its end.
        self.tts_pad_row, self._tts_bos_row, self.tts_eos_row = torch.split(special, 1)
        vocabulary, end = self._config.text.vocabulary, self._config.codec_eos_id
        # int64 (n): never to be chosen as the first code of a frame.
        self.suppressed_code_ids = self._ids([i for i in range(vocabulary - CONTROL_IDS, vocabulary) if i != end])

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, config: OmniConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> "Talker":
        talker = config.require_talker()
        text, thinker_text = talker.text, config.thinker.text
        _require_fit(config)
        experts = local_experts(checkpoint, PREFIX, text, dtype=dtype, device=device)
        decoder = Decoder.load(checkpoint, PREFIX, text, experts, dtype=dtype, device=device)
        with torch.device("meta"):
            projections = tuple(Projection(talker.thinker_width, text.feed_forward, text.width) for _ in range(2))
        for name, projection in zip(("text", "hidden"), projections, strict=True):
            checkpoint.fill(projection, f"talker.{name}_projection.", dtype=dtype, device=device)
        names = {
            "thinker.model.embed_tokens.weight": (thinker_text.vocabulary, thinker_text.width),
            f"{PREFIX}codec_embedding.weight": (text.vocabulary, text.width),
            "talker.codec_head.weight": (text.vocabulary, text.width),
        }
        read = partial(checkpoint.tensor, dtype=dtype, device=device)
        tokens, codes, head = (read(name, shape) for name, shape in names.items())
        code_predictor = CodePredictor.load(checkpoint, talker, codes, dtype=dtype, device=device)
        return cls(config, decoder, (projections[0], projections[1]), (tokens, codes, head), code_predictor)

    def text_rows(self, token_ids: Tensor) -> Tensor:
        """token_ids int64 (n) of the Thinker's vocabulary -> (n, width)"""
        rows: Tensor = self._text_projection(F.embedding(token_ids, self._token_embedding))
        return rows

    def hidden_rows(self, rows: Tensor) -> Tensor:
        """The Thinker's accepted rows (n, thinker width) at multimodal placeholders -> (n, width)"""
        projected: Tensor = self._hidden_projection(rows)
        return projected

    def assistant_rows(self, prefix_ids: Sequence[int], speaker_id: int) -> Tensor:
        """The assistant's rows that need no answer yet (8, width): the prefix ids as text, then silence and the
        beginning of text over the codes that open speech."""
        config = self._config
        opening = [
            config.codec_nothink_id,
            config.codec_think_bos_id,
            config.codec_think_eos_id,
            speaker_id,
            config.codec_pad_id,
        ]
        spoken = torch.cat((self.tts_pad_row.expand(len(opening) - 1, -1), self._tts_bos_row))
        prefix = self.text_rows(self._ids(prefix_ids))
        return torch.cat((prefix, spoken + F.embedding(self._ids(opening), self._code_embedding)))

    def first_text_row(self, token_id: int) -> Tensor:
        """The row (1, width) of the first generated token, which ends the prompt."""
        begin = F.embedding(self._ids([self._config.codec_bos_id]), self._code_embedding)
        return self.text_rows(self._ids([token_id])) + begin

    def forward(self, rows: Tensor, positions: Tensor, batch: StepAttention, keys_values: PagedKeyValues) -> Tensor:
        """rows (rows, width), positions float32 (3, rows) -> (rows, width), normalised."""
        hidden: Tensor = self._decoder(rows, positions, batch, keys_values)
        return hidden

    def code_logits(self, hidden: Tensor) -> Tensor:
        """hidden (n, width) -> float32 (n, code vocabulary)"""
        return F.linear(hidden, self._code_head).float()

    def _ids(self, ids: Sequence[int]) -> Tensor:
        return sent(np.array(ids, dtype=np.int64), self._code_head.device)


def _require_fit(config: OmniConfig) -> None:
    talker, width = config.require_talker(), config.thinker.text.width
    if talker.thinker_width != width:
        raise CheckpointError(
            f"config.json lets the Talker read rows of width {talker.thinker_width}, but the Thinker's have {width}. "
            "The configuration is of different models."
        )
