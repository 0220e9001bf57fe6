"""The four stages as their callers see them, whether they answer over gRPC or from a fake.

Every method is an async generator over proto messages. Open it with `contextlib.aclosing`: closing it before its end
cancels the call at once and closes `requests` too. Failures come as `antiphon.errors`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse


class Encoders(Protocol):
    def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]: ...


class Thinker(Protocol):
    def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]: ...


class Talker(Protocol):
    def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]: ...


class Codec(Protocol):
    def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything that a turn talks to."""

    encoders: Encoders
    thinker: Thinker
    talker: Talker
    codec: Codec
    # The same stages, whose calls of one affinity meet the same replicas; None where there is nothing to choose.
    of_affinity: "Callable[[bytes], Stages] | None" = None

    def near(self, affinity: bytes) -> "Stages":
        return self if self.of_affinity is None else self.of_affinity(affinity)
