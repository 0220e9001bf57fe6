"""What is kept of a turn gives the same turn again."""

from dataclasses import replace

import pytest

from antiphon.errors import InternalError, Unavailable
from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Text, ToolCall, Video
from antiphon.v1.generation_pb2 import LogitBias, Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_VIDEO
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.record import MediumName, TurnRecord, pack_record, unpack_record
from services.gateway.turns.request import AnswerGrammar, Medium, SpeechRequest, TurnRequest, TurnScheduling

FULL = TurnRequest(
    conversation=Conversation(
        (
            Message("system", (Text("Be brief.\u2028ключ \U0001f600"),)),
            Message("user", (Audio(), Text("and"), Image(), Video(with_sound=True), Video())),
            Message("assistant", (Text("one moment"),), (ToolCall("find", '{"city": "Kyōto"}'),)),
            Message("tool", (Text("rain"),)),
        ),
        enable_thinking=True,
        tools=('{"name": "find"}',),
    ),
    media=(),
    sampling=Sampling(temperature=0.7, top_p=0.0, seed=(1 << 64) - 1, logit_bias=[LogitBias(token_id=3, bias=-2.5)]),
    max_answer_tokens=77,
    stop=("\n\n", "end"),
    speech=SpeechRequest("ethan", Sampling(temperature=0.9, seed=5), max_frames=100),
    cache_salt=bytes(range(32)),
    scheduling=TurnScheduling("acme", 2.5, "batch"),
    context_tokens=4096,
    form=AnswerForm(thinks=True, is_thinking=False, tools=frozenset({"find", "book"})),
    most_calls=1,
    grammar=AnswerGrammar("start: /a+/", "response_format"),
    affinity=b"\x00\xff",
)
PLAIN = TurnRequest(Conversation((Message("user", (Text("hi"),)),)), (), Sampling(seed=0), None, (), None)
NAMES = (
    MediumName.of(Medium(MODALITY_AUDIO, b"RIFF", "messages[1].content[0]"), "a" * 64),
    MediumName.of(Medium(MODALITY_VIDEO, b"mp4", "messages[1].content[3]", 2.5, use_audio_in_video=True), "b" * 64),
)


@pytest.mark.parametrize("request_", [FULL, PLAIN], ids=["full", "plain"])
@pytest.mark.parametrize("names", [(), NAMES], ids=["no media", "media"])
def test_a_turn_is_the_same_after_it_was_kept(request_: TurnRequest, names: tuple[MediumName, ...]) -> None:
    record = TurnRecord(request_, names, 2048, '{"told": "how"}')
    assert unpack_record(pack_record(record)) == record


def test_every_field_of_a_turn_is_kept() -> None:
    """A field that is added later and forgotten here would silently be another on resumption."""
    plain = {name: getattr(PLAIN, name) for name in TurnRequest.__dataclass_fields__}
    changed = {name: getattr(FULL, name) for name in plain if getattr(FULL, name) != plain[name]}
    assert set(changed) == set(TurnRequest.__dataclass_fields__) - {"media"}
    for name, value in changed.items():
        one = replace(PLAIN, **{name: value})
        assert unpack_record(pack_record(TurnRecord(one, (), 1, ""))).request == one


def test_media_come_back_with_their_bytes() -> None:
    medium = Medium(MODALITY_VIDEO, b"mp4", "messages[0].content[1].video_url.url", 0.5, use_audio_in_video=True)
    assert MediumName.of(medium, "hash").with_data(b"mp4") == medium


def test_what_another_release_wrote_is_told_as_that() -> None:
    data = pack_record(TurnRecord(PLAIN, (), 1, ""))
    with pytest.raises(Unavailable, match="reads format 2; came 3"):
        unpack_record(data.replace(b'"format":2', b'"format":3'))
    for broken in (b"", b"{}", b"[]", data[:-9], data.replace(b'["text","hi"]', b'["song","hi"]')):
        with pytest.raises(InternalError):
            unpack_record(broken)
