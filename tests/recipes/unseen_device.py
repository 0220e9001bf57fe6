"""A device whose values the host cannot see, and to which nothing of the host's may come: what a CUDA graph asks for.

It is torch's `meta`, which refuses by itself whatever needs a value; `sealed()` refuses copies from the host, too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNSEEN = torch.device("meta")
MADE_ON_THE_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy)


class BroughtFromTheHost(AssertionError):
    """Captured, the copy would happen once and never again, or end the capture."""


class _NothingMade(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in MADE_ON_THE_HOST:
            raise BroughtFromTheHost(f"{func.__name__}{args}")
        return func(*args, **(kwargs or {}))


class _NothingRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        tensors = (leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor))
        if any(tensor.device != UNSEEN for tensor in tensors):
            raise BroughtFromTheHost(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def sealed() -> Iterator[None]:
    with _NothingMade(), _NothingRead():  # type: ignore[no-untyped-call]
        yield
