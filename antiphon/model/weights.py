"""Which tensors a checkpoint directory holds and how a role reads only its own, memory-mapped.

Both layouts of Hugging Face are read: one `model.safetensors`, or shards with `model.safetensors.index.json`. A
directory with `random_weights.json` instead has tensors that are drawn as they are read.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from antiphon.errors import CheckpointError
from antiphon.model.random_tensors import RANDOM_WEIGHTS, RandomTensors

# Matrices that a module keeps as one and the disk as several, stacked in this order.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class TensorSource(Protocol):
    """Where a checkpoint's tensors come from."""

    def names(self) -> Collection[str]: ...

    def read(self, names: Sequence[str], *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Just these, all of them in `names`. Raises CheckpointError."""
        ...

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """None where it is not stored but made in any type."""
        ...


class Checkpoint:
    """The tensors of one checkpoint directory, by their names on disk. Nothing is read before it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        is_random = (directory / RANDOM_WEIGHTS).exists()
        self._source: TensorSource = RandomTensors(directory) if is_random else _Files(directory)

    def names(self, prefix: str) -> list[str]:
        """Names on disk that start with `prefix`, sorted."""
        return sorted(name for name in self._source.names() if name.startswith(prefix))

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """The type on disk, in which reading to a CPU maps without a copy; None where nothing is stored."""
        if name not in self._source.names():
            raise CheckpointError(_missing_sentence(self.directory, [name]))
        return self._source.stored_dtype(name)

    def load(
        self, names: Iterable[str], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Reads just `names`. Raises CheckpointError naming what is missing or cannot be read."""
        wanted, known = list(names), self._source.names()
        missing = [name for name in wanted if name not in known]
        if missing:
            raise CheckpointError(_missing_sentence(self.directory, missing))
        return self._source.read(wanted, dtype=dtype, device=torch.device(device))

    def tensor(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Reads one tensor, which must have the shape that the configuration asks for."""
        tensor = self.load([name], dtype=dtype, device=device)[name]
        self._require_shape(name, tensor, shape)
        return tensor

    def fill(
        self,
        module: nn.Module,
        prefix: str,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        given: dict[str, Tensor] | None = None,
    ) -> None:
        """Gives every parameter of `module` (built on the meta device) the tensor `prefix + its name`; `given` takes
        the place of names that the disk lays out differently, and FUSED matrices are stacked from their parts. Shapes
        are checked against the configuration."""
        state = dict(given or {})
        parameters = dict(module.named_parameters())
        parts = {name: _parts(prefix + name) for name in parameters if name not in state}
        read = self.load([part for each in parts.values() for part in each], dtype=dtype, device=device)
        state.update({name: self._stack([read.pop(part) for part in each], each[0]) for name, each in parts.items()})
        for name, tensor in state.items():
            if name in parameters:
                self._require_shape(prefix + name, tensor, tuple(parameters[name].shape))
        module.load_state_dict(state, strict=True, assign=True)
        module.requires_grad_(False)

    def _stack(self, parts: list[Tensor], name: str) -> Tensor:
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise CheckpointError(f"{self.directory}: {name} and its sisters have shapes {shapes}, not one width.")
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _require_shape(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape:
            raise CheckpointError(
                f"{self.directory}: {name} has shape {tuple(tensor.shape)}, but config.json asks for {shape}. "
                "The weights and the configuration are of different models."
            )


class _Files:
    """safetensors, mapped into memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file_of = _tensor_files(directory)

    def names(self) -> Collection[str]:
        return self._file_of.keys()

    def read(self, names: Sequence[str], *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        read: dict[str, Tensor] = {}
        for file in sorted({self._file_of[name] for name in names}):
            inside = [name for name in names if self._file_of[name] == file]
            try:
                with safe_open(self._directory / file, framework="pt", device=str(device)) as tensors:
                    read.update({name: tensors.get_tensor(name).to(dtype) for name in inside})
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{self._directory / file}: expected {', '.join(inside[:3])}; {error}. Copy it again."
                ) from error
        return read

    def stored_dtype(self, name: str) -> torch.dtype | None:
        file = self._directory / self._file_of[name]
        try:
            with safe_open(file, framework="pt") as tensors:
                dtype: torch.dtype = tensors.get_tensor(name).dtype
                return dtype
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: expected {name}; {error}. Copy it again.") from error


def load_experts(
    checkpoint: Checkpoint,
    prefix: str,
    first: int,
    stop: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Experts [first, stop) of the layer at `prefix` ("thinker.model.layers.3.mlp.experts."), fused.

    Returns gate_up (experts, 2 * expert width, width) with the gate's rows first, down (experts, width, expert width).
    """
    names = {
        part: [f"{prefix}{expert}.{part}_proj.weight" for expert in range(first, stop)]
        for part in ("gate", "up", "down")
    }
    read = checkpoint.load([name for each in names.values() for name in each], dtype=dtype, device=device)
    for each in names.values():
        shapes = {tuple(read[name].shape) for name in each}
        if len(shapes) > 1:
            raise CheckpointError(
                f"{checkpoint.directory}: {each[0]} and its sisters differ in shape: {sorted(shapes)}."
            )
    gate, up, down = (torch.stack([read.pop(name) for name in each]) for each in names.values())
    return torch.cat((gate, up), 1), down


def _parts(name: str) -> list[str]:
    """The names on disk of the tensor or tensors that make up `name`."""
    owner, _, kind = name.rpartition(".")
    path, _, fused = owner.rpartition(".")
    return [f"{path}.{part}.{kind}" for part in FUSED[fused]] if fused in FUSED else [name]


def _tensor_files(directory: Path) -> dict[str, str]:
    index, single = directory / "model.safetensors.index.json", directory / "model.safetensors"
    try:
        if index.exists():
            files = {str(name): str(file) for name, file in json.loads(index.read_text())["weight_map"].items()}
            absent = sorted({file for file in files.values() if not (directory / file).exists()})
            if absent:
                raise CheckpointError(
                    f"{directory}: the index names {', '.join(absent[:3])}, which is not there. Copy all shards."
                )
            return files
        with safe_open(single, framework="pt") as tensors:
            return dict.fromkeys(tensors.keys(), single.name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory}: expected model.safetensors or model.safetensors.index.json of Hugging Face; {error}"
        ) from error


def _missing_sentence(directory: Path, missing: list[str]) -> str:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f"{directory}: the checkpoint lacks {shown}. Use a complete checkpoint of a variant that has this part."
