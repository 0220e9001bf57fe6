"""Changes that spoil the messages of a call to a decoder's stage, each in one way."""

from collections.abc import Callable
from typing import Any

import numpy as np

from antiphon.v1.generation_pb2 import Prompt, Sampling
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.wire import arrays

# Of a whole call; they may be edited in place.
Messages = list[Any]
Change = Callable[[Messages], Messages]


def with_start(**options: Any) -> Change:
    """Sets fields of the start; lists and messages are added to what is there."""

    def change(messages: Messages) -> Messages:
        start = messages[0].start
        for name, value in options.items():
            if isinstance(value, (Prompt, Sampling)):
                getattr(start, name).MergeFrom(value)
            elif isinstance(value, list):
                getattr(start, name).extend(value)
            else:
                setattr(start, name, value)
        return messages

    return change


def with_positions(values: np.ndarray) -> Change:
    def change(messages: Messages) -> Messages:
        messages[0].start.prompt.positions.CopyFrom(arrays.pack(values))
        return messages

    return change


def edited(place: int, edit: Callable[[Any], None]) -> Change:
    """The message at that place, changed."""

    def change(messages: Messages) -> Messages:
        edit(messages[place])
        return messages

    return change


def zeros(*shape: int) -> Tensor:
    return arrays.pack(np.zeros(shape, np.float32))


def no_numbers(tensor: Tensor) -> None:
    """Makes every element of it no number."""
    tensor.CopyFrom(arrays.pack(np.full(tuple(tensor.shape), np.nan, np.float32)))
