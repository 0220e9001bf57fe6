"""What one turn comes to: how it ends, what it has read and written, and what its stages measured of themselves."""

from dataclasses import dataclass, field

from antiphon.errors import InternalError
from antiphon.prompt.prompt import TokenCounts
from antiphon.telemetry.names import StageName
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH, Timings
from services.gateway.turns.answer_reader import AnswerReader
from services.gateway.turns.request import FinishReason, StageTimings, TurnEnd


@dataclass(slots=True)
class TurnAccount:
    prompt_tokens: TokenCounts = field(default_factory=lambda: TokenCounts(text=0, audio=0, image=0, video=0))
    text_tokens: int = 0
    cached_tokens: int = 0
    frames: int = 0
    finish_reason: FinishReason = "stop"
    timings: dict[StageName, StageTimings] = field(default_factory=dict)

    def finish_with(self, reason: int) -> None:
        """Text or speech cut by its bound makes the answer cut."""
        if reason == FINISH_REASON_LENGTH:
            self.finish_reason = "length"

    def note(self, stage: StageName, timings: Timings) -> None:
        self.timings[stage] = StageTimings(
            queue_ms=timings.queue_ms,
            first_output_ms=timings.first_output_ms,
            total_ms=timings.total_ms,
            steps=timings.steps,
            residual_codes_ms=timings.residual_codes_ms or None,
        )

    def require(self, stage: StageName) -> None:
        """A stream that merely stops is not an end: the stage must have said so."""
        if stage not in self.timings:
            raise InternalError(f"The {stage} stage closed its stream before its end message.")

    def end(self, reader: AnswerReader | None) -> TurnEnd:
        has_calls = reader is not None and reader.has_calls and self.finish_reason == "stop"
        return TurnEnd(
            finish_reason="tool_calls" if has_calls else self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            text_tokens=self.text_tokens,
            audio_tokens=self.frames,
            stage_timings=self.timings,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=reader.reasoning_tokens if reader is not None else 0,
        )
