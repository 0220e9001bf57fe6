"""What the spans of the audio routes say of their turns."""

import httpx

from antiphon.telemetry import tracing
from antiphon.telemetry.span_records import SpanRing
from tests.gateway.conftest import MODEL


async def test_speech_is_a_turn_of_the_model_like_any_other(client: httpx.AsyncClient) -> None:
    ring = SpanRing()
    traced = tracing.configure("test", ring)
    try:
        body = {"model": MODEL, "input": "hello", "voice": "ethan", "response_format": "pcm"}
        answer = await client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
    finally:
        traced.close()
    (span,) = (span for span in ring.spans() if span.name == "POST /v1/audio/speech")
    told = {key: value for key, value in span.attributes.items() if key.startswith("gen_ai.")}
    assert told["gen_ai.operation.name"] == "generate_content"
    assert told["gen_ai.request.model"] == MODEL
    assert told["gen_ai.output.type"] == "speech"
    assert told["gen_ai.usage.input_tokens"] > 0
