"""The published OpenAPI is true: whatever fits it, or does not, is answered as it says, and never by a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounds
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from antiphon.telemetry.metrics import Metrics
from antiphon.wire.fakes import fake_stages
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import MODEL

ANSWERS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
REQUESTS = [negative_data_rejection, unsupported_method, allow_header_conformance]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_any_request_is_answered_as_published(settings: GatewaySettings, mode: GenerationMode) -> None:
    app = create_app(settings, fake_stages(), metrics=Metrics())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 19
    for operation in operations:
        if operation.body or mode is GenerationMode.POSITIVE:  # only a body can be wrong
            try_out(operation, mode, examples=_examples(operation))


def _examples(operation: schemathesis.APIOperation) -> int:
    """Administration asks for a key before it looks at anything else."""
    return 150 if operation.body and not operation.path.startswith("/v1/admin") else 10


def try_out(operation: schemathesis.APIOperation, mode: GenerationMode, examples: int) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @bounds(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_published(case: schemathesis.Case) -> None:
        assert_envelope_if_refused(case.call_and_validate(checks=[*ANSWERS, *REQUESTS]))
        if isinstance(case.body, dict) and "model" in case.body:
            # Most names that fit the schema are no model: further faults hide behind that one.
            case.body = {**case.body, "model": MODEL}
            assert_envelope_if_refused(case.call_and_validate(checks=ANSWERS))

    answers_as_published()


def assert_envelope_if_refused(response: schemathesis.Response) -> None:
    if response.status_code >= 400:
        assert set(response.json()) == {"error"}
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_every_refusal_has_the_envelope_for_its_schema(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    refusals = [
        answer
        for path in ("/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/models/{model_id}")
        for operation in paths[path].values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert len(refusals) >= 8
    for answer in refusals:
        assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")


async def test_every_optional_field_may_be_null(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    for model in ("ChatCompletionRequest", "SpeechBody", "TranscriptionForm"):
        request = schemas[model]
        for name, field in request["properties"].items():
            if name not in request["required"]:
                kinds = [kind.get("type") for kind in field.get("anyOf", [{"type": "null"}])]
                assert "null" in kinds, name


async def test_every_reference_leads_somewhere(client: httpx.AsyncClient, app: FastAPI) -> None:
    document = (await client.get("/openapi.json")).json()
    known = set(document["components"]["schemas"])
    assert {reference.rsplit("/", 1)[1] for reference in references(document)} <= known
    assert not {"HTTPValidationError", "ValidationError"} & known


def references(node: Any) -> set[str]:
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    found = {node["$ref"]} if isinstance(node, dict) and isinstance(node.get("$ref"), str) else set()
    return found.union(*map(references, children)) if children else found
