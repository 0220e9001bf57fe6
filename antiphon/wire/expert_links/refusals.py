"""What a shard refuses, as errors of the family."""

import logging
from collections.abc import Mapping
from typing import Final

from antiphon.errors import AntiphonError, Conflict, DeadlineExceeded, InvalidInput, Unavailable
from antiphon.v1.expert_service_pb2 import ComputeRefusal

_LOG = logging.getLogger(__name__)

_ERRORS: Final[Mapping["ComputeRefusal.Reason", type[AntiphonError]]] = {
    ComputeRefusal.REASON_NOT_HELD: Conflict,
    ComputeRefusal.REASON_TOO_LATE: DeadlineExceeded,
    ComputeRefusal.REASON_STOPPING: Unavailable,
    ComputeRefusal.REASON_INVALID: InvalidInput,
    ComputeRefusal.REASON_FAILED: Unavailable,
}
_REASONS: Final = {
    Conflict: ComputeRefusal.REASON_NOT_HELD,
    DeadlineExceeded: ComputeRefusal.REASON_TOO_LATE,
    Unavailable: ComputeRefusal.REASON_STOPPING,
    InvalidInput: ComputeRefusal.REASON_INVALID,
}


def error_of(refusal: ComputeRefusal) -> AntiphonError:
    return _ERRORS.get(refusal.reason, Unavailable)(refusal.message or "The expert shard refused without a reason.")


def refusal_of(error: Exception) -> ComputeRefusal:
    """Of a fault that nobody foresaw the caller learns no more than that there was one."""
    if not isinstance(error, AntiphonError):
        _LOG.error("An expert call failed by a defect.", exc_info=error)
        return ComputeRefusal(reason=ComputeRefusal.REASON_FAILED, message="The expert shard failed by a defect.")
    reasons = (reason for kind, reason in _REASONS.items() if issubclass(type(error), kind))
    return ComputeRefusal(reason=next(reasons, ComputeRefusal.REASON_FAILED), message=error.message)
