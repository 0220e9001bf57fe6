"""What a step's calls of shards have cost: told to its requests and the metrics, and of some steps call by call."""

import time
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from services.thinker.expert_step import CallSample, ExpertStep, ExpertUsage, RequestExperts

# Spans of other requests to which that of a step is linked.
_MOST_LINKS: Final = 32


def charge(requests: Sequence[tuple[RequestExperts, bool]], usage: ExpertUsage) -> None:
    """Of each request that shared the step whether it has its first output after it."""
    for request, has_output in requests:
        (request.later if has_output else request.until_first).add(usage)


def observe(metrics: Metrics, usage: ExpertUsage) -> None:
    answered = usage.calls - usage.retries
    metrics.experts.observe_step(
        answered=answered, retried=usage.retries, pairs=usage.pairs, wait_seconds=usage.wait_seconds
    )


def show(step: ExpertStep, requests: Sequence[RequestExperts], started_ns: int) -> None:
    """Below the call of the first request that is traced, with links to the others'."""
    spans = [each.span for each in requests if each.span.is_recording()]
    if not spans:
        return
    usage = step.usage
    attributes = {
        names.STEP_REQUESTS: len(requests),
        names.EXPERT_CALLS: usage.calls,
        names.EXPERT_PAIRS: usage.pairs,
        names.EXPERT_RETRIES: usage.retries,
        names.EXPERT_WAIT: usage.wait_seconds * 1e3,
    }
    parent = trace.set_span_in_context(spans[0])
    links = [each.get_span_context() for each in spans[1 : 1 + _MOST_LINKS]]
    whole = tracing.record(names.SPAN_EXPERT_STEP, started_ns, time.time_ns(), attributes, parent=parent, links=links)
    below = trace.set_span_in_context(whole)
    for sample in step.samples:
        tracing.record(names.SPAN_EXPERT_CALL, sample.started_ns, sample.ended_ns, _attributes(sample), parent=below)


def _attributes(sample: CallSample) -> tracing.Attributes:
    found: dict[str, AttributeValue] = {
        names.EXPERT_LAYER: sample.layer,
        names.EXPERT_SHARD: sample.address,
        names.EXPERT_PAIRS: sample.pairs,
    }
    if sample.error:
        found[names.ERROR_TYPE] = sample.error
    return found
