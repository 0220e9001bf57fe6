"""The four streaming methods of the wire: which stage answers, where, and with what messages."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from antiphon.errors import InvalidInput
from antiphon.telemetry.names import StageName
from antiphon.v1 import codec_service_pb2, encoder_service_pb2, talker_service_pb2, thinker_service_pb2
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

# How a service answers a stream: (requests, grpc.aio.ServicerContext) -> answers.
Answer = Callable[[AsyncIterator[RequestT], Any], AsyncGenerator[ResponseT, None]]


@dataclass(frozen=True, slots=True)
class StreamMethod(Generic[RequestT, ResponseT]):
    stage: StageName
    # Such as "antiphon.v1.TalkerService".
    service: str
    # Such as "antiphon.v1.TalkerService/Speak": the span's name, too.
    full_name: str
    encode_request: Callable[[RequestT], bytes]
    decode_request: Callable[[bytes], RequestT]
    encode_response: Callable[[ResponseT], bytes]
    decode_response: Callable[[bytes], ResponseT]

    @property
    def path(self) -> str:
        return f"/{self.full_name}"

    def add_to_server(self, server: grpc.aio.Server, answer: Answer[RequestT, ResponseT]) -> None:
        """What the generated add_..._to_server does, with types."""
        handler = grpc.stream_stream_rpc_method_handler(answer, self.decode_request, self.encode_response)
        name = self.full_name.rpartition("/")[2]
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.service, {name: handler}),))


def _method(
    stage: StageName, proto: Any, service: str, name: str, request: type[RequestT], response: type[ResponseT]
) -> StreamMethod[RequestT, ResponseT]:
    descriptor = proto.DESCRIPTOR.services_by_name[service]
    method = descriptor.methods_by_name[name]
    return StreamMethod(
        stage=stage,
        service=descriptor.full_name,
        full_name=f"{descriptor.full_name}/{method.name}",
        encode_request=request.SerializeToString,
        decode_request=reader(request),
        encode_response=response.SerializeToString,
        decode_response=response.FromString,
    )


def reader(request: type[RequestT]) -> Callable[[bytes], RequestT]:
    """What it gives raises InvalidInput for bytes that are no such message."""

    def read(data: bytes) -> RequestT:
        try:
            return request.FromString(data)
        except DecodeError:
            name = request.DESCRIPTOR.full_name
            raise InvalidInput(f"Expected a message {name}; came {len(data)} bytes that are none.") from None

    return read


ENCODE: Final = _method("encoders", encoder_service_pb2, "EncoderService", "Encode", EncodeRequest, EncodeResponse)
GENERATE: Final = _method(
    "thinker", thinker_service_pb2, "ThinkerService", "Generate", GenerateRequest, GenerateResponse
)
SPEAK: Final = _method("talker", talker_service_pb2, "TalkerService", "Speak", SpeakRequest, SpeakResponse)
DECODE: Final = _method("codec", codec_service_pb2, "CodecService", "Decode", DecodeRequest, DecodeResponse)

# The gRPC service of every stage that answers one.
SERVICES: Final[Mapping[StageName, str]] = {
    method.stage: method.service for method in (ENCODE, GENERATE, SPEAK, DECODE)
}
