"""The whole codec, and the file that keeps it."""

from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .decoder import speak
from .encode import SHIPPED, SpeechCoder
from .encoder import EncoderShape
from .quantiser import QuantiserShape

SHIPPED_CHECKPOINT = Path(__file__).parents[3] / "models" / "nano" / "model.safetensors"
_CODE2WAV = "code2wav."


class Codec(SpeechCoder):
    """`code2wav` is transformers' own module; its tensors and ours go by the names that the file has."""

    def __init__(self, code2wav: nn.Module) -> None:
        super().__init__(EncoderShape(), QuantiserShape())
        self.code2wav = code2wav

    @classmethod
    def shipped(cls, code2wav: nn.Module) -> Self:
        """The shipped voice; `code2wav` gives its shape and takes the shipped weights."""
        with safe_open(SHIPPED_CHECKPOINT, "pt") as checkpoint:
            names = [name for name in checkpoint.keys() if name.startswith(_CODE2WAV)]  # noqa: SIM118 - no mapping
            tensors: dict[str, Tensor] = {name: checkpoint.get_tensor(name).float() for name in names}
        codec = cls(code2wav)
        codec.load_state_dict(tensors | {name: tensor.float() for name, tensor in load_file(SHIPPED).items()})
        return codec

    @classmethod
    def read(cls, file: Path, code2wav: nn.Module) -> Self:
        """Raises RuntimeError that names the tensors which the file lacks, has too many or in other shapes."""
        codec = cls(code2wav)
        codec.load_state_dict(load_file(file))
        return codec

    def save(self, file: Path) -> None:
        """Writes all tensors, and the quantiser's vectors as Code2Wav's embeddings; the file appears whole."""
        self.export_embeddings()
        partial = file.with_suffix(".partial")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}, partial)
        partial.replace(file)

    @torch.no_grad()
    def export_embeddings(self) -> None:
        """Lets Code2Wav read codes: until then it was trained on the quantiser's sums."""
        embeddings = self.code2wav.get_parameter("code_embedding.weight")
        embeddings.copy_(self.quantiser.code_embeddings())

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, frames, levels) -> (batch, samples), not clamped: as Code2Wav does once embeddings are exported."""
        return speak(self.code2wav, self.quantiser.output(self.quantiser.decode(codes)))
