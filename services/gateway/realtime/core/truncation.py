"""What is left of an answer whose listener stopped it."""

from dataclasses import replace

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, AssistantItem, Item, OutputSpeech

_OUTPUT_RATE_HZ = SAMPLE_RATES_HZ["pcm"]


def truncated(item: Item, content_index: int, audio_end_ms: int) -> AssistantItem:
    """The same up to there, with the words that had been said by then. Raises InvalidInput."""
    part = item.parts[content_index] if isinstance(item, AssistantItem) and content_index < len(item.parts) else None
    if not isinstance(item, AssistantItem) or not isinstance(part, OutputSpeech) or part.alignment is None:
        raise InvalidInput(
            "Only speech that was generated in this session can be truncated; this content is none.",
            param="item_id",
            code="item_truncate_invalid_item_id",
        )
    sample_count = audio_end_ms * _OUTPUT_RATE_HZ // 1000
    if sample_count > part.sample_count:
        raise InvalidInput(
            f"Audio content of {part.sample_count * 1000 // _OUTPUT_RATE_HZ} ms is already shorter than "
            f"{audio_end_ms} ms.",
            param="audio_end_ms",
            code="invalid_value",
        )
    heard = replace(part, transcript=part.alignment.heard(part.transcript, sample_count), sample_count=sample_count)
    return replace(item, parts=tuple(heard if i == content_index else other for i, other in enumerate(item.parts)))
