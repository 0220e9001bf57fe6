"""Where the stages leave what the next ones need: one folder a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkFolder:
    root: Path

    @property
    def questions(self) -> Path:
        """Shards of what users say, 16 kHz."""
        return self.root / "questions"

    @property
    def answers(self) -> Path:
        """Shards of what nano says, 24 kHz."""
        return self.root / "answers"

    @property
    def tokenizer(self) -> Path:
        """Tokenizer and processor as Hugging Face saves them."""
        return self.root / "tokenizer"

    @property
    def codec(self) -> Path:
        """Tensors `encoder.*`, `quantiser.*` and `code2wav.*`."""
        return self.root / "codec.safetensors"

    @property
    def codes(self) -> Path:
        """Shards of answers as codes."""
        return self.root / "codes"

    @property
    def thinker(self) -> Path:
        """Tensors `thinker.*`, and `ctc.*` of the head that only training needs."""
        return self.root / "thinker.safetensors"

    @property
    def talker(self) -> Path:
        """Tensors `talker.*`."""
        return self.root / "talker.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The assembled Hugging Face checkpoint."""
        return self.root / "checkpoint"

    @property
    def report(self) -> Path:
        """What the evaluation measured."""
        return self.root / "report.json"

    def state(self, stage: str) -> Path:
        """Where a stage's training goes on after an interruption."""
        return self.root / "state" / f"{stage}.pt"
