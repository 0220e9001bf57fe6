"""What a turn is taken to need before its media are decoded and its answer is known.

A bound that the client set is reserved in full; where it set none, what answers usually take. The rest becomes a debt.
"""

from typing import Final

from antiphon.prompt.conversation import Text
from antiphon.tenancy.limiter import Amounts, Demand
from antiphon.v1.media_pb2 import MODALITY_AUDIO
from services.gateway.turns.request import TurnRequest

# Of text in UTF-8: a token of English has four, one of Chinese about five.
_BYTES_PER_TOKEN: Final = 4
# 16 kHz, 16 bits, one channel: what microphones of clients send. Compressed sound is longer than this says.
_SOUND_BYTES_PER_MS: Final = 32
_USUAL_ANSWER_TOKENS: Final = 256
_USUAL_SPEECH_MS: Final = 10_000
_MS_PER_FRAME: Final = 80
_MS_PER_AUDIO_TOKEN: Final = 80
# A picture or film of common size.
_PICTURE_TOKENS: Final = 1024


def demand_of(asked: TurnRequest, holder: str = "") -> Demand:
    """holder: of its place, which whoever goes on with the turn elsewhere takes over."""
    sound_ms = sum(len(m.data) for m in asked.media if m.modality == MODALITY_AUDIO) // _SOUND_BYTES_PER_MS
    speech_ms = _speech_ms(asked)
    answer_tokens = asked.max_answer_tokens or _USUAL_ANSWER_TOKENS
    tokens = _text_tokens(asked) + _media_tokens(asked, sound_ms) + answer_tokens + speech_ms // _MS_PER_FRAME
    amounts = Amounts(requests=1, tokens=tokens, audio_in_ms=sound_ms, audio_out_ms=speech_ms)
    return Demand(amounts, holder=holder)


def _text_tokens(asked: TurnRequest) -> int:
    messages = asked.conversation.messages
    texts = [part.text for message in messages for part in message.parts if isinstance(part, Text)]
    texts += [call.arguments for message in messages for call in message.tool_calls]
    texts += asked.conversation.tools
    return -(-sum(len(text.encode(errors="replace")) for text in texts) // _BYTES_PER_TOKEN)


def _media_tokens(asked: TurnRequest, sound_ms: int) -> int:
    pictures = sum(medium.modality != MODALITY_AUDIO for medium in asked.media)
    return sound_ms // _MS_PER_AUDIO_TOKEN + pictures * _PICTURE_TOKENS


def _speech_ms(asked: TurnRequest) -> int:
    if asked.speech is None:
        return 0
    return min(_USUAL_SPEECH_MS, asked.speech.max_frames * _MS_PER_FRAME)
