"""What the Talker computes: speech as frames of codes, many at once, over one model and one key/value store."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from antiphon.engine.decode_steps import DecodeSteps
from antiphon.engine.decoder import Submission
from antiphon.engine.generation import Generation
from antiphon.engine.loading import LoadingDecoder
from antiphon.engine.prefill_steps import PrefillSteps
from antiphon.engine.sampler import SamplerState, SamplingParameters
from antiphon.engine.sequence import FinishReason, Share, Timings
from antiphon.errors import ContextTooLong, InvalidInput
from antiphon.hosting.decoder_service import speech_signals
from antiphon.model.attention import PagedKeyValues
from antiphon.model.config import OmniConfig
from antiphon.model.placement import Placement, placement, wait_for
from antiphon.model.talker import Talker
from antiphon.model.weights import Checkpoint
from antiphon.scaling.signals import SpeechSignals
from antiphon.wire.generation import PromptNumbers
from services.talker.config import TalkerSettings
from services.talker.frame_steps import FrameSteps
from services.talker.page_keys import TalkerPageKeys
from services.talker.request import ASSISTANT_ROWS, AcceptedRows, Frame, SpokenText, TalkerRequest
from services.talker.runner import TalkerRunner, decoding, prefilling
from services.talker.speech_sampling import checkpoint_sampling, speech_sampling

PREFIX_IDS = 3
# 12.5 frames are a second.
FRAME_SECONDS = 0.08


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be spoken, but for its text and hidden rows, which follow by `Speech.add_*`."""

    # The user's turns; its positions cover the nine rows of the assistant too.
    prompt: PromptNumbers
    prefix_ids: Sequence[int]
    voice: str
    max_frames: int
    # None follows the checkpoint.
    sampling: SamplingParameters | None = None
    residual_sampling: SamplingParameters | None = None
    # Requests of one salt share what their user turns have in common; an empty one shares with nobody.
    cache_salt: bytes = b""
    share: Share = field(default_factory=Share)
    # What another replica has spoken already, with draws of the same seed.
    spoken: Sequence[Frame] = ()

    @property
    def is_over(self) -> bool:
        """Another replica has spoken all of it, and only its end is missing."""
        return 0 < self.max_frames == len(self.spoken)


class TalkerEngine:
    def __init__(self, settings: TalkerSettings) -> None:
        self._settings = settings
        self.config = OmniConfig.from_checkpoint(settings.checkpoint)
        self.talker_config = self.config.require_talker()
        self._default_sampling = checkpoint_sampling(settings.checkpoint)
        # Of a prompt and its frames together.
        self.context_rows = settings.context(self.talker_config.text.max_positions)
        self._placement = placement(settings.device, settings.dtype)
        self.decoder: LoadingDecoder[TalkerRequest, Frame] = LoadingDecoder(
            "Talker", settings.bounds(self._placement.device)
        )

    async def start(self) -> None:
        """Loads the model, which takes a while, starts the engine's thread and lets it compute once. Raises what keeps
        it from that."""
        await self.decoder.start(lambda: _load(self._settings, self.config, self._placement))
        await self._warm_up()
        self.decoder.forget_pace()

    def speak(self, script: Script) -> "Speech":
        """Raises InvalidInput, ContextTooLong or AtCapacity. Close the speech, also after its end."""
        request = self._request(script)
        keys = self._page_keys(request, script.cache_salt)
        media_rows = len(request.accepted.prompt_rows)
        submission = Submission(
            request,
            prompt_rows=request.known_rows,
            max_rows=request.prompt_rows + script.max_frames - 1,
            available_rows=request.available_rows,
            max_untaken=self._settings.untaken_frames,
            page_keys=keys,
            output_seconds=FRAME_SECONDS,
            share=script.share,
        )
        generation = self.decoder.submit(submission, media_rows=media_rows)
        return Speech(self, request, generation, keys)

    def signals(self) -> SpeechSignals:
        settings = self._settings
        return speech_signals(self.decoder.load(), places=settings.running_requests, frame_seconds=FRAME_SECONDS)

    def end_text(self, request: TalkerRequest) -> None:
        request.end_text(self._settings.frames_per_token, self._settings.least_frames)

    async def _warm_up(self) -> None:
        """The first computations choose kernels; no caller should wait for that."""
        rows = 1 + ASSISTANT_ROWS
        prompt = PromptNumbers(np.zeros(1, np.int64), np.zeros((3, rows), np.float32), next_position=float(rows))
        voice = next(iter(self.talker_config.speaker_ids))
        async with aclosing(self.speak(Script(prompt, [0] * PREFIX_IDS, voice, max_frames=2))) as speech:
            speech.add_token(0, is_last=False)
            speech.add_token(0, is_last=True)
            async for _ in speech:
                pass

    def _request(self, script: Script) -> TalkerRequest:
        self._check(script)
        sampling = speech_sampling(self._default_sampling, script.sampling, script.residual_sampling)
        first_code = SamplerState(sampling.first_code)
        seed = sampling.residual_codes.seed
        request = TalkerRequest(
            script.prompt,
            list(script.prefix_ids),
            self.talker_config.speaker_ids[script.voice],
            AcceptedRows(self._media_rows(script.prompt), self.talker_config.thinker_width, self._placement.dtype),
            SpokenText(self.config.tts_eos_id, self.config.tts_pad_id),
            first_code,
            sampling.residual_codes,
            first_code.generator if seed is None else random.Random(seed),  # noqa: S311 (sampling, not secrets)
            script.max_frames,
        )
        request.resume(script.spoken)
        return request

    def _page_keys(self, request: TalkerRequest, salt: bytes) -> TalkerPageKeys | None:
        if not salt or not self._settings.shares_pages:
            return None
        keys = TalkerPageKeys(request, salt, self._settings.page_rows)
        keys.read_prompt()
        return keys

    def _media_rows(self, prompt: PromptNumbers) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        thinker = self.config.thinker
        media_ids = (thinker.audio_token_id, thinker.image_token_id, thinker.video_token_id)
        return np.flatnonzero(np.isin(prompt.token_ids, media_ids))

    def _check(self, script: Script) -> None:
        if script.voice not in self.talker_config.speaker_ids:
            known = ", ".join(sorted(self.talker_config.speaker_ids))
            raise InvalidInput(
                f"audio.voice: expected one of {known}; came {script.voice[:64]!r}.", param="audio.voice"
            )
        if len(script.prefix_ids) != PREFIX_IDS:
            raise InvalidInput(
                f"assistant_prefix_ids: expected the {PREFIX_IDS} ids that open the assistant's turn; came "
                f"{len(script.prefix_ids)}.",
                param="assistant_prefix_ids",
            )
        if script.max_frames < 1:
            raise InvalidInput(f"max_frames: expected 1 or more; came {script.max_frames}.", param="max_frames")
        rows = len(script.prompt.token_ids) + ASSISTANT_ROWS
        if rows + script.max_frames > self.context_rows:
            raise ContextTooLong(
                f"The Talker's context holds {self.context_rows} rows; the user's turns take {rows} and the speech may "
                f"take {script.max_frames}. Shorten the conversation or lower the limit of the speech."
            )
        self._check_spoken(script)

    def _check_spoken(self, script: Script) -> None:
        if len(script.spoken) >= script.max_frames:
            raise InvalidInput(
                f"spoken: expected fewer than the {script.max_frames} frames of the whole speech; came "
                f"{len(script.spoken)}.",
                param="spoken",
            )


class Speech:
    """One speech: give it text tokens and hidden rows as they come, iterate over its frames, close it."""

    def __init__(
        self,
        engine: TalkerEngine,
        request: TalkerRequest,
        generation: Generation[Frame],
        keys: TalkerPageKeys | None,
    ) -> None:
        self._engine, self._request, self._generation, self._keys = engine, request, generation, keys
        self._is_closed = False
        # Where nothing has to be computed for it.
        self._early_end: FinishReason | None = None

    def add_hidden_rows(self, first_row: int, rows: Tensor) -> None:
        """The Thinker's next accepted rows (n, thinker width). Raises InvalidInput."""
        self._request.accepted.add(first_row, rows)
        if self._keys is not None:
            self._keys.read_prompt()
        self._generation.extend(self._request.available_rows)

    def add_token(self, token_id: int, *, is_last: bool) -> None:
        """The next token of the answer; the last one is not spoken, and an answer of one token is silence."""
        text = self._request.text
        if text.has_ended:
            raise InvalidInput(f"token: expected nothing after the last one; came {token_id}.")
        if not is_last and len(text.ids) >= self._engine.context_rows:
            raise ContextTooLong(f"token: expected at most {self._engine.context_rows} tokens to speak; one more came.")
        if is_last:
            self._request.accepted.require_all()
            self._engine.end_text(self._request)
        else:
            text.ids.append(token_id)
        self._early_end = self._end_of_text() if is_last else None
        if self._early_end is None:
            self._generation.extend(self._request.available_rows)
        else:
            self._generation.cancel()

    def _end_of_text(self) -> FinishReason | None:
        """Silence ends with its text, and so does what another replica had spoken to the bound that the text gives."""
        return self._request.end if self._request.text.ids else "stop"

    def require_last_token(self) -> None:
        if not self._request.text.has_ended:
            raise InvalidInput("The input broke off before the last token.")

    def __aiter__(self) -> AsyncIterator[Frame]:
        return aiter(self._generation)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until it has ended, and when it was closed before."""
        return self._early_end or self._generation.finish_reason

    @property
    def timings(self) -> Timings:
        return self._generation.timings

    @property
    def residual_codes_ms(self) -> float:
        """Of one frame, on average; zero without any."""
        return self._request.residual_codes_ms / max(1, len(self._request.frames))

    async def aclose(self) -> None:
        """Frees its pages, wherever it stands."""
        self._generation.cancel()
        if not self._is_closed:
            self._is_closed = True
            self._engine.decoder.release_media(len(self._request.accepted.prompt_rows))


def _load(settings: TalkerSettings, config: OmniConfig, where: Placement) -> TalkerRunner:
    talker = Talker.load(Checkpoint(settings.checkpoint), config, dtype=where.dtype, device=where.device)
    shape = config.require_talker()
    keys_values = PagedKeyValues(
        shape.text, settings.page_count, settings.page_rows, dtype=where.dtype, device=where.device
    )
    graphs, most_rows = settings.graphs(where.device), shape.text.max_positions
    if graphs is None:
        wait_for(where.device)
        return TalkerRunner(talker, shape, keys_values, FrameSteps(talker.code_predictor))
    like, limits = keys_values.keys.new_zeros(shape.text.width), settings.decode_limits(most_rows)
    prefill_limits = settings.prefill_limits(most_rows)
    prefill_steps = PrefillSteps(prefilling(talker, keys_values), like, keys_values, prefill_limits, graphs)
    decode_steps = DecodeSteps(decoding(talker, keys_values), like, keys_values, limits, graphs)
    frame_steps = FrameSteps(talker.code_predictor, limits.requests, graphs)
    wait_for(where.device)
    return TalkerRunner(talker, shape, keys_values, frame_steps, decode_steps, prefill_steps)
