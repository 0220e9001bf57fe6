"""The error family survives the wire; what is not of the family tells nothing."""

import grpc
import pytest

from antiphon import errors as family
from antiphon.wire import errors

EVERY_ERROR = [
    family.InvalidInput("Expected 1; came 2.", param="messages.0.content", code="wrong"),
    family.UnreadableMedia("No sound in it."),
    family.ContextTooLong("Too long: ünïcödé 语音.", param="messages"),
    family.TooLarge("Too large.", param="größe[0] x"),
    family.NotFound("No such voice.", code="voice_not_found"),
    family.Unauthenticated("No key."),
    family.PermissionDenied("Not this model.", param="model", code="model_not_allowed"),
    family.RateLimited("Used up.", retry_after_seconds=7.5),
    family.AtCapacity("Full.", retry_after_seconds=2.5),
    family.Unavailable("Away."),
    family.DeadlineExceeded("Late."),
    family.CheckpointError("Lacks a tensor."),
    family.InternalError("A defect."),
]


def as_rpc_error(error: family.AntiphonError) -> grpc.aio.AioRpcError:
    metadata = grpc.aio.Metadata(*errors.metadata_of(error))
    return grpc.aio.AioRpcError(errors.status_of(error), grpc.aio.Metadata(), metadata, errors.details_of(error), None)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_comes_back_as_itself(error: family.AntiphonError) -> None:
    back = errors.from_rpc_error(as_rpc_error(error), called="talker")
    assert type(back) is type(error)
    assert (back.message, back.code, back.param) == (error.message, error.code, error.param)
    if isinstance(error, family.AtCapacity | family.RateLimited):
        assert isinstance(back, family.AtCapacity | family.RateLimited)
        assert back.retry_after_seconds == error.retry_after_seconds
    assert all(value.isascii() and value.isprintable() for _, value in errors.metadata_of(error))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, family.Unavailable),
        (grpc.StatusCode.CANCELLED, family.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, family.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, family.InternalError),
        (grpc.StatusCode.UNKNOWN, family.InternalError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, family.AtCapacity),
    ],
)
def test_a_status_of_grpc_itself_finds_its_place(
    status: grpc.StatusCode, kind: type[family.AntiphonError], caplog: pytest.LogCaptureFixture
) -> None:
    below = "failed to connect to ipv4:10.0.0.7:7001"
    bare = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), below, None)
    back = errors.from_rpc_error(bare, called="talker")
    assert type(back) is kind
    assert "talker" in back.message
    assert "10.0.0.7" not in back.message, "callers do not learn where stages live"
    assert below in caplog.text, "operators do"


def test_a_message_beyond_grpcs_bound_is_too_large() -> None:
    details = "Received message larger than max (70000000 vs. 67108864)"
    bare = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None
    )
    assert type(errors.from_rpc_error(bare, called="codec")) is family.TooLarge


def test_a_member_of_the_family_is_found_inside_groups() -> None:
    wanted = family.TooLarge("Too large.")
    group = BaseExceptionGroup("outer", [KeyError("x"), ExceptionGroup("inner", [ValueError("y"), wanted])])
    assert errors.family_member(group) is wanted
    assert errors.family_member(KeyError("secret")) is None


def test_a_subclass_travels_as_the_class_that_the_wire_knows() -> None:
    class Narrower(family.UnreadableMedia):
        pass

    assert dict(errors.metadata_of(Narrower("x")))[errors.TYPE_KEY] == "UnreadableMedia"
    assert errors.status_of(Narrower("x")) is grpc.StatusCode.INVALID_ARGUMENT
