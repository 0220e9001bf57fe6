"""The methods of the expert service: one stream of calls, and three questions that are asked of it beside."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from antiphon.v1 import expert_service_pb2
from antiphon.v1.expert_service_pb2 import (
    AssignRequest,
    AssignResponse,
    ComputeRequest,
    ComputeResponse,
    DescribeRequest,
    DescribeResponse,
    ReportRequest,
    ReportResponse,
)
from antiphon.wire.methods import StreamMethod, reader

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_SERVICE: Final = expert_service_pb2.DESCRIPTOR.services_by_name["ExpertService"].full_name


@dataclass(frozen=True, slots=True)
class Question(Generic[RequestT, ResponseT]):
    """One message each way."""

    name: str
    encode_request: Callable[[RequestT], bytes]
    decode_request: Callable[[bytes], RequestT]
    encode_response: Callable[[ResponseT], bytes]
    decode_response: Callable[[bytes], ResponseT]

    @property
    def path(self) -> str:
        return f"/{_SERVICE}/{self.name}"

    def add_to_server(self, server: grpc.aio.Server, answer: Callable[[RequestT, Any], Awaitable[ResponseT]]) -> None:
        handler = grpc.unary_unary_rpc_method_handler(answer, self.decode_request, self.encode_response)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {self.name: handler}),))


def _question(name: str, request: type[RequestT], response: type[ResponseT]) -> Question[RequestT, ResponseT]:
    return Question(name, request.SerializeToString, reader(request), response.SerializeToString, response.FromString)


COMPUTE: Final = StreamMethod(
    stage="experts",
    service=_SERVICE,
    full_name=f"{_SERVICE}/Compute",
    encode_request=ComputeRequest.SerializeToString,
    decode_request=reader(ComputeRequest),
    encode_response=ComputeResponse.SerializeToString,
    decode_response=ComputeResponse.FromString,
)
DESCRIBE: Final = _question("Describe", DescribeRequest, DescribeResponse)
ASSIGN: Final = _question("Assign", AssignRequest, AssignResponse)
REPORT: Final = _question("Report", ReportRequest, ReportResponse)
