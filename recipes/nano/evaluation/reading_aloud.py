"""A checkpoint's voice alone: texts that it is given are spoken, many at once, by Antiphon's Talker.

No Thinker takes part, so nothing but the voice can be wrong. One thread schedules and runs: the same lines make the
same batches, hence the same speech to the last bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.sampler import SamplerState
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import Sequence as Rows
from antiphon.model.attention import PagedKeyValues
from antiphon.model.config import OmniConfig
from antiphon.model.placement import placement
from antiphon.model.talker import Talker
from antiphon.model.weights import Checkpoint
from antiphon.prompt.conversation import Conversation, Message, Text
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.tokenizer import PromptTokenizer
from antiphon.wire.generation import PromptNumbers
from recipes.nano.evaluation.ceilings import CodeReader
from recipes.nano.evaluation.speech import MOST_FRAMES, Line, Speech
from services.talker.request import AcceptedRows, SpokenText, TalkerRequest
from services.talker.runner import TalkerRunner
from services.talker.speech_sampling import checkpoint_sampling, speech_sampling

AT_ONCE, ROWS_AT_ONCE = 64, 512
PAGE_ROWS, PAGES = 16, 4096


class Voice:
    """Speaks as the checkpoint's generation_config.json says, each line from its seed."""

    def __init__(self, checkpoint: Path) -> None:
        self._prompts, self._tokenizer = PromptBuilder(checkpoint), PromptTokenizer.from_checkpoint(checkpoint)
        self._config = OmniConfig.from_checkpoint(checkpoint)
        self._sampling = checkpoint_sampling(checkpoint)
        self._runner = _runner(checkpoint, self._config)
        self._decoder = CodeReader(checkpoint)

    def speak(self, lines: Sequence[Line], most_frames: int = MOST_FRAMES) -> list[Speech]:
        """One speech a line, in order."""
        limits = SchedulerLimits(max_running=AT_ONCE, max_waiting=max(1, len(lines)), rows_per_step=ROWS_AT_ONCE)
        scheduler = Scheduler[TalkerRequest](limits, PagePool(PAGES, PAGE_ROWS))
        requests = [self._request(line, most_frames) for line in lines]
        for request in requests:
            scheduler.add(Rows(request, request.prompt_rows, request.prompt_rows + most_frames - 1))
        ended = self._run(scheduler)
        each = zip(lines, requests, strict=True)
        return [self._speech(line, request, ended=request in ended) for line, request in each]

    def _run(self, scheduler: Scheduler[TalkerRequest]) -> list[TalkerRequest]:
        """Those that ended by themselves."""
        ended = []
        while plan := scheduler.schedule():
            for part, outcome in zip(plan, self._runner.run(plan), strict=True):
                scheduler.advance(part)
                if outcome.error is not None:
                    raise outcome.error
                if outcome.finish_reason is not None:
                    scheduler.remove(part.sequence)
                    self._runner.release(part.sequence.request)
                if outcome.finish_reason == "stop":
                    ended.append(part.sequence.request)
        return ended

    def _request(self, line: Line, most_frames: int) -> TalkerRequest:
        talker = self._config.require_talker()
        asked = self._prompts.build(Conversation((Message("user", (Text(asking_for(line.text)),)),)))
        ids, prompt = np.array(asked.talker.token_ids, np.int64), asked.talker
        text = self._tokenizer.encode_plain(line.text)
        sampling = speech_sampling(replace(self._sampling, seed=line.seed), None, None)
        first_code = SamplerState(sampling.first_code)
        return TalkerRequest(
            PromptNumbers(ids, prompt.positions, prompt.next_position),
            list(asked.assistant_prefix_ids),
            talker.speaker_ids[line.voice],
            AcceptedRows(np.empty(0, np.int64), talker.thinker_width, torch.float32),
            SpokenText(self._config.tts_eos_id, self._config.tts_pad_id, text, has_ended=True),
            first_code,
            sampling.residual_codes,
            first_code.generator,
            most_frames,
        )

    def _speech(self, line: Line, request: TalkerRequest, *, ended: bool) -> Speech:
        groups = self._config.require_talker().code_groups
        codes = np.stack(request.frames) if request.frames else np.empty((0, groups), np.int16)
        return Speech(line, self._decoder.samples(codes), ended=ended)


def asking_for(text: str) -> str:
    """What a user types to have it said."""
    return f"say {text.lower().removesuffix('.')}"


def _runner(checkpoint: Path, config: OmniConfig) -> TalkerRunner:
    where, talker = placement("auto", "auto"), config.require_talker()
    model = Talker.load(Checkpoint(checkpoint), config, dtype=where.dtype, device=where.device)
    keys_values = PagedKeyValues(talker.text, PAGES, PAGE_ROWS, dtype=where.dtype, device=where.device)
    return TalkerRunner.of(model, talker, keys_values)
