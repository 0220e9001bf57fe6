"""What the Thinker computes: answers as token ids, many requests at once, over one model and one key/value store."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from opentelemetry import trace
from torch import Tensor

from antiphon.engine.decoder import Submission
from antiphon.engine.generation import Generation
from antiphon.engine.loading import LoadingDecoder
from antiphon.engine.sampler import SamplerState, SamplingParameters
from antiphon.engine.sequence import FinishReason, Share, Timings
from antiphon.errors import CheckpointError, ContextTooLong, InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.model.placement import placement
from antiphon.model.weights import Checkpoint
from antiphon.prompt.conversation import Modality
from antiphon.wire.generation import PromptNumbers
from services.thinker.config import ThinkerSettings
from services.thinker.expert_step import RequestExperts
from services.thinker.expert_trunk import ExpertTrunk
from services.thinker.grammar import AnswerMatcher, Grammars
from services.thinker.loading import load_runner, load_trunk
from services.thinker.page_keys import ThinkerPageKeys
from services.thinker.prompt_media import PromptMedia
from services.thinker.request import ThinkerOutput, ThinkerRequest, end_of
from services.thinker.runner import ThinkerRunner
from services.thinker.shard_places import ShardPlaces


@dataclass(frozen=True, slots=True)
class Question:
    """prompt: ids with every placeholder; its media rows follow by `Answer.add_rows`."""

    prompt: PromptNumbers
    sampling: SamplingParameters
    max_new_tokens: int
    stop_token_ids: Sequence[int] = ()
    sends_hidden_rows: bool = False
    # Requests of one salt share what their prompts have in common; an empty one shares with nobody.
    cache_salt: bytes = b""
    share: Share = field(default_factory=Share)
    # What another replica has written of the answer already, with draws of the same seed.
    generated_ids: Sequence[int] = ()
    # Ends once the prompt has been computed, and writes nothing.
    is_prefill_only: bool = False
    # Of what the answer must be, by `ThinkerEngine.grammars`; None leaves it free.
    matcher: AnswerMatcher | None = None

    @property
    def answer_rows(self) -> int:
        """The most tokens of the whole answer."""
        return 0 if self.is_prefill_only else self.max_new_tokens


class ThinkerEngine:
    def __init__(self, settings: ThinkerSettings, shards: ShardPlaces | None = None) -> None:
        """shards: where the experts are; None reads them into this process."""
        self._settings, self._shards = settings, shards
        self._trunk: ExpertTrunk | None = None
        self.config = OmniConfig.from_checkpoint(settings.checkpoint)
        self._end_ids = end_token_ids(settings.checkpoint, self.config)
        self.grammars = Grammars(settings.checkpoint, self.config.thinker.text.vocabulary, self._end_ids)
        # Of a prompt and its answer together.
        self.context_rows = settings.context(self.config.thinker.text.max_positions)
        self._placement = placement(settings.device, settings.dtype)
        self.decoder: LoadingDecoder[ThinkerRequest, ThinkerOutput] = LoadingDecoder(
            "Thinker", settings.bounds(self._placement.device)
        )

    async def start(self) -> None:
        """Loads the model, which takes a while, starts the engine's thread and lets it compute once. Raises what keeps
        it from that."""
        await self.decoder.start(self._load)
        if self._trunk is not None:
            await self._trunk.start()
        await self.grammars.read()
        await self._warm_up()
        self.decoder.forget_pace()

    async def close(self) -> None:
        await self.decoder.close()
        if self._trunk is not None:
            await self._trunk.close()

    @property
    def shards(self) -> Sequence[str]:
        """Addresses of the expert shards that are called now."""
        return () if self._trunk is None else self._trunk.shards

    def answer(self, question: Question) -> "Answer":
        """Raises InvalidInput, ContextTooLong or AtCapacity. Close the answer, also after its end."""
        request = self._request(question)
        keys = self._page_keys(request, question.cache_salt)
        media_rows = len(request.media.prompt_rows)
        submission = Submission(
            request,
            prompt_rows=request.known_rows,
            max_rows=max(request.known_rows, request.prompt_rows + question.answer_rows - 1),
            available_rows=request.media.available_rows,
            max_untaken=self._settings.untaken_tokens,
            page_keys=keys,
            share=question.share,
            awaits_outputs=question.matcher is not None,
        )
        generation = self.decoder.submit(submission, media_rows=media_rows)
        return Answer(self, request, generation, keys)

    def end_of(self, question: Question) -> FinishReason | None:
        """How an answer that was written elsewhere has ended already, if it has. Raises InvalidInput."""
        if not question.generated_ids:
            return None
        self._check(question)
        return end_of(question.generated_ids, self._ends(question), question.max_new_tokens)

    def _load(self) -> ThinkerRunner:
        if self._shards is None:
            return load_runner(self._settings, self.config, self._placement)
        checkpoint, settings = Checkpoint(self._settings.checkpoint), self._settings.remote_experts
        self._trunk = ExpertTrunk(
            checkpoint, self.config, self._placement, settings, self._shards, self._settings.rows_per_step
        )
        return load_trunk(self._settings, self.config, self._placement, self._trunk)

    async def _warm_up(self) -> None:
        """The first computations choose kernels; no caller should wait for that."""
        prompt = PromptNumbers(np.zeros(2, np.int64), np.zeros((3, 2), np.float32), next_position=2.0)
        question = Question(prompt, SamplingParameters(temperature=1.0), max_new_tokens=2)
        async with aclosing(self.answer(question)) as answer:
            async for _ in answer:
                pass

    def _request(self, question: Question) -> ThinkerRequest:
        prompt = question.prompt
        self._check(question)
        request = ThinkerRequest(
            prompt.token_ids,
            prompt.positions,
            prompt.next_position,
            PromptMedia(prompt.token_ids, self.config, self._placement.dtype),
            SamplerState(question.sampling, prompt.token_ids.tolist()),
            question.max_new_tokens,
            self._ends(question),
            question.sends_hidden_rows,
            question.is_prefill_only,
            question.matcher,
            None if self._shards is None else RequestExperts(trace.get_current_span()),
        )
        request.resume(list(question.generated_ids))
        return request

    def _ends(self, question: Question) -> frozenset[int]:
        return self._end_ids.union(question.stop_token_ids)

    def _page_keys(self, request: ThinkerRequest, salt: bytes) -> ThinkerPageKeys | None:
        if not salt or not self._settings.shares_pages:
            return None
        keys = ThinkerPageKeys(request, salt, self._settings.page_rows)
        keys.read_prompt()
        return keys

    def _check(self, question: Question) -> None:
        prompt_rows, max_new_tokens = len(question.prompt.token_ids), question.max_new_tokens
        if prompt_rows < 1:
            raise InvalidInput("prompt.token_ids: expected at least one id; came none.", param="prompt.token_ids")
        if max_new_tokens < 1 and not question.is_prefill_only:
            raise InvalidInput(f"max_new_tokens: expected 1 or more; came {max_new_tokens}.", param="max_new_tokens")
        if prompt_rows + question.answer_rows > self.context_rows:
            raise ContextTooLong(
                f"The context holds {self.context_rows} tokens; the prompt has {prompt_rows} and the answer may take "
                f"{question.answer_rows}. Shorten the prompt or lower the limit of the answer."
            )
        if question.sends_hidden_rows and self.config.talker is None:
            raise InvalidInput("return_multimodal_hidden_rows: this checkpoint has no Talker to read them.")
        self._check_generated(question)

    def _check_generated(self, question: Question) -> None:
        written, most = question.generated_ids, question.answer_rows
        if len(written) > most:
            raise InvalidInput(
                f"generated_ids: expected at most {most}, the limit of the answer; came {len(written)}.",
                param="generated_ids",
            )
        if not self._ends(question).isdisjoint(written[:-1]):
            raise InvalidInput(
                "generated_ids: expected nothing after the id that ends the answer.", param="generated_ids"
            )


class Answer:
    """One answer being written: give it its media rows, iterate over its outputs, close it."""

    def __init__(
        self,
        engine: ThinkerEngine,
        request: ThinkerRequest,
        generation: Generation[ThinkerOutput],
        keys: ThinkerPageKeys | None,
    ) -> None:
        self._engine, self._request, self._generation, self._keys = engine, request, generation, keys
        self._is_closed = False

    def add_rows(self, modality: Modality, first_row: int, rows: Tensor, deepstack: Sequence[Tensor]) -> None:
        """The next rows of one modality; what they complete is computed at once. Raises InvalidInput."""
        self._request.media.add(modality, first_row, rows, deepstack)
        if self._keys is not None:
            self._keys.read_prompt()
        self._generation.extend(self._request.media.available_rows)

    def require_all_rows(self) -> None:
        self._request.media.require_all()

    def __aiter__(self) -> AsyncIterator[ThinkerOutput]:
        return aiter(self._generation)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until it has ended, and when it was closed before."""
        return self._generation.finish_reason

    @property
    def cached_prompt_tokens(self) -> int:
        """Tokens of the prompt that an earlier request had computed; final with the first token."""
        return min(self._generation.cached_rows, self._request.prompt_rows)

    @property
    def experts(self) -> RequestExperts | None:
        """What calls of expert shards have cost so far; None where experts are in this process."""
        return self._request.experts

    @property
    def timings(self) -> Timings:
        return self._generation.timings

    async def aclose(self) -> None:
        """Frees its pages, wherever it stands."""
        self._generation.cancel()
        if not self._is_closed:
            self._is_closed = True
            self._engine.decoder.release_media(len(self._request.media.prompt_rows))


def end_token_ids(checkpoint: Path, config: OmniConfig) -> frozenset[int]:
    """generation_config.json's eos_token_id, one or several; without it the end of a turn."""
    file = checkpoint / "generation_config.json"
    try:
        found = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: expected a JSON object of Hugging Face's generation settings; {error}"
        ) from error
    ids = found if isinstance(found, list) else [config.im_end_id if found is None else found]
    if not all(isinstance(each, int) and 0 <= each < config.thinker.text.vocabulary for each in ids):
        raise CheckpointError(f"{file}: expected eos_token_id to be ids of the vocabulary; found {found!r}.")
    return frozenset(ids)
