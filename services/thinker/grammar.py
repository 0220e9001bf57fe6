"""Answers bound by a grammar: which tokens may come next, by llguidance over the checkpoint's own tokenizer."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from torch import Tensor

from antiphon.errors import AntiphonError, InternalError, InvalidInput
from antiphon.model.placement import sent
from antiphon.prompt.tokenizer import PromptTokenizer

# A lexer takes about 2 KB a state: 40 MB at most for a grammar that is made to be expensive.
_LEXER_STATES: Final = 20_000
# Before the source that llguidance shows with its reason.
_SHOWN_SOURCE: Final = "\n   1 |"
_REASON: Final = "failed to compile JSON schema: "
_SHOWN_CHARACTERS: Final = 400


class AnswerMatcher:
    """How far one answer has got in its grammar. Not for two threads at once."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def resume(self, generated_ids: Sequence[int]) -> None:
        """Raises InvalidInput where the grammar does not allow what another replica has written."""
        if generated_ids and not self._matcher.consume_tokens(list(generated_ids)):
            raise InvalidInput("generated_ids: expected what the grammar allows.", param="generated_ids")

    def forbidden(self) -> NDArray[np.bool_]:
        """(vocabulary): ids that may not come next."""
        allowed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            return np.ones(self._vocabulary, np.bool_)
        forbidden: NDArray[np.bool_] = np.unpackbits(allowed, count=self._vocabulary, bitorder="little") == 0
        return forbidden

    def write(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)

    @property
    def error(self) -> AntiphonError | None:
        """Why it knows no further: the grammar is too complex at this place."""
        if not self._matcher.is_error():
            return None
        reason = self._matcher.get_error().partition("\n")[0]
        return InternalError(f"The answer cannot be held to its grammar any further: {reason[:_SHOWN_CHARACTERS]}")


class Grammars:
    """Of one checkpoint."""

    def __init__(self, checkpoint: Path, vocabulary: int, end_ids: frozenset[int]) -> None:
        self._checkpoint, self._vocabulary, self._end_ids = checkpoint, vocabulary, sorted(end_ids)
        self._tokenizer: LLTokenizer | None = None
        self._reading = threading.Lock()
        # One at a time: the threads that compile are those that others' media rows need.
        self._compiling = asyncio.Semaphore(1)
        self._limits = LLParserLimits(max_lexer_states=_LEXER_STATES, verbose_errors=False)

    async def read(self) -> None:
        """The tokenizer, for which llguidance takes seconds while nothing else of the process runs: before anybody
        waits for an answer. Left out, the first grammar does it."""
        await asyncio.to_thread(self._read_tokenizer)

    async def matcher(self, lark: str) -> AnswerMatcher:
        """Compiled in a thread, which may take a while. Raises InvalidInput."""
        return await self._in_turn(LLMatcher.grammar_from_lark(lark))

    async def json_matcher(self, schema: str) -> AnswerMatcher:
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema)
        except ValueError as error:
            raise _refused(str(error)) from error
        return await self._in_turn(grammar)

    async def _in_turn(self, grammar: str) -> AnswerMatcher:
        async with self._compiling:
            return await asyncio.to_thread(self._compiled, grammar)

    def _compiled(self, grammar: str) -> AnswerMatcher:
        matcher = LLMatcher(self._read_tokenizer(), grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        # The first one takes longest, and a step of the model must not wait for it.
        matcher.compute_bitmask()
        return AnswerMatcher(matcher, self._vocabulary)

    def _read_tokenizer(self) -> LLTokenizer:
        with self._reading:
            if self._tokenizer is None:
                written = PromptTokenizer.from_checkpoint(self._checkpoint).as_json()
                self._tokenizer = LLTokenizer(written, n_vocab=self._vocabulary, eos_token=self._end_ids)
            return self._tokenizer


class Bound(Protocol):
    @property
    def matcher(self) -> AnswerMatcher | None: ...


def forbid(logits: Tensor, requests: Sequence[Bound]) -> Tensor:
    """logits (requests, vocabulary), overwritten: minus infinity where a request's grammar does not allow an id. A step
    without grammars does nothing."""
    bound = [(row, request.matcher) for row, request in enumerate(requests) if request.matcher is not None]
    if not bound:
        return logits
    forbidden = sent(np.stack([matcher.forbidden() for _, matcher in bound]), logits.device)
    rows = sent(np.array([row for row, _ in bound], dtype=np.int64), logits.device)
    return logits.index_copy_(0, rows, logits.index_select(0, rows).masked_fill_(forbidden, -torch.inf))


def _refused(reason: str) -> InvalidInput:
    """Without the grammar's source, which the caller did not write."""
    told = reason.partition(_SHOWN_SOURCE)[0]
    told = " ".join(told.partition(_REASON)[2].split() or told.split())
    return InvalidInput(
        f"The answer cannot be held to this grammar: {told[:_SHOWN_CHARACTERS]}.".replace("..", "."), param="grammar"
    )
