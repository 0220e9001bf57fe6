"""What is left of an answer whose listener stopped it, as its client tells."""

from dataclasses import replace
from typing import Final

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, AssistantItem, Item, OutputSpeech

_OUTPUT_RATE_HZ: Final = SAMPLE_RATES_HZ["pcm"]


def truncated(item: Item, content_index: int, audio_end_ms: int) -> tuple[AssistantItem, int]:
    """The same up to there, with the words that had been said by then; and where it ends now, in ms.

    Where the server has cut it shorter already, because no more can have been heard, it stays so. Raises InvalidInput.
    """
    part = item.parts[content_index] if isinstance(item, AssistantItem) and content_index < len(item.parts) else None
    if not isinstance(item, AssistantItem) or not isinstance(part, OutputSpeech) or part.alignment is None:
        raise InvalidInput(
            "Only speech that was generated in this session can be truncated; this content is none.",
            param="item_id",
            code="item_truncate_invalid_item_id",
        )
    sample_count = audio_end_ms * _OUTPUT_RATE_HZ // 1000
    sent_count = part.sample_count if part.sent_count is None else part.sent_count
    if sample_count > sent_count:
        raise InvalidInput(
            f"Audio content of {sent_count * 1000 // _OUTPUT_RATE_HZ} ms is already shorter than {audio_end_ms} ms.",
            param="audio_end_ms",
            code="invalid_value",
        )
    heard = part.heard(sample_count)
    if sample_count <= part.sample_count:
        heard = replace(heard, sent_count=None)
    parts = tuple(heard if i == content_index else other for i, other in enumerate(item.parts))
    return replace(item, parts=parts), min(audio_end_ms, part.heard_ms)
