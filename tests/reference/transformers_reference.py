"""The truth of every exactness test: transformers' own greedy `generate` on the same checkpoint and numbers."""

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3OmniMoeForConditionalGeneration


@dataclass(frozen=True)
class ReferenceTurn:
    """text_ids: what the Thinker wrote, with its end token if it came; codes: (frames, 16) or None; wave: (samples,) or
    None, one full decode of the codes (transformers' chunked decode has holes after 24 s)."""

    text_ids: list[int]
    codes: torch.Tensor | None
    wave: torch.Tensor | None


class TransformersReference:
    """One checkpoint loaded whole by transformers, float32, on the CPU."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        # transformers 5.23 forgets it, and then cannot place audio beside vision for the Talker.
        self.model.talker.config.audio_config = self.model.config.thinker_config.audio_config

    @torch.no_grad()
    def generate(
        self,
        inputs: Mapping[str, torch.Tensor],
        *,
        max_new_tokens: int = 24,
        max_frames: int = 40,
        speaker: str = "Ethan",
        eos_token_ids: list[int] | None = None,
        repetition_penalty: float = 1.05,
        use_audio_in_video: bool = False,
    ) -> ReferenceTurn:
        """Greedy text and codes. Where transformers itself fails (nothing to say, no frame) codes and wave are None."""
        eos = eos_token_ids or [self.model.config.im_end_token_id]
        options = {"thinker_do_sample": False, "thinker_max_new_tokens": max_new_tokens, "thinker_eos_token_id": eos}
        with self._captured_codes() as captured, warnings.catch_warnings(action="ignore"):
            try:
                ids, _ = self.model.generate(
                    **inputs,
                    **options,
                    talker_do_sample=False,
                    # transformers counts the first code's step too, and returns one frame less.
                    talker_max_new_tokens=max_frames + 1,
                    talker_repetition_penalty=repetition_penalty,
                    speaker=speaker,
                    use_audio_in_video=use_audio_in_video,
                )
            except RuntimeError:
                ids = self.model.generate(
                    **inputs, **options, return_audio=False, use_audio_in_video=use_audio_in_video
                )
        ids = ids[0] if isinstance(ids, tuple) else ids
        text_ids = ids[0, inputs["input_ids"].shape[1] :].tolist()
        if not captured:
            return ReferenceTurn(text_ids, None, None)
        codes = captured[0]
        return ReferenceTurn(text_ids, codes[0].T.contiguous(), self.model.code2wav(codes).reshape(-1))

    @contextmanager
    def _captured_codes(self) -> Any:
        code2wav, captured = self.model.code2wav, []
        original = code2wav.chunked_decode

        def spy(codes: torch.Tensor, **options: Any) -> torch.Tensor:
            captured.append(codes.clone())
            return torch.as_tensor(original(codes, **options))

        code2wav.chunked_decode = spy
        try:
            yield captured
        finally:
            del code2wav.chunked_decode
