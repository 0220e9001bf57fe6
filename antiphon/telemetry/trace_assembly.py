"""Spans that arrive in any order from any number of processes, gathered into whole traces."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from antiphon.telemetry.span_records import SpanRecord


@dataclass(slots=True)
class _Gathering:
    changed_seconds: float
    spans: dict[str, SpanRecord] = field(default_factory=dict)

    def whole(self) -> bool:
        """The root is here, every parent is known, and every call was answered by its server's span."""
        parents = {span.parent_id for span in self.spans.values()}
        calls = [span for span in self.spans.values() if span.kind == "client"]
        return (
            None in parents
            and parents - {None} <= self.spans.keys()
            and all(call.failed or call.span_id in parents for call in calls)
        )


class TraceAssembly:
    """A trace is finished when it is whole and quiet for a moment, or when nothing more came for a long time."""

    def __init__(
        self, *, settle_seconds: float = 0.3, give_up_seconds: float = 6.0, max_traces: int = 256, max_spans: int = 4096
    ) -> None:
        self._settle_seconds = settle_seconds
        self._give_up_seconds = give_up_seconds
        self._max_traces = max_traces
        self._max_spans = max_spans
        self._open: OrderedDict[str, _Gathering] = OrderedDict()

    def add(self, spans: Sequence[SpanRecord], now_seconds: float) -> None:
        """Beyond the bounds the oldest trace is forgotten, and a trace's further spans are dropped."""
        for span in spans:
            gathering = self._open.setdefault(span.trace_id, _Gathering(now_seconds))
            gathering.changed_seconds = now_seconds
            if len(gathering.spans) < self._max_spans:
                gathering.spans[span.span_id] = span
        while len(self._open) > self._max_traces:
            self._open.popitem(last=False)

    def take_finished(self, now_seconds: float) -> list[list[SpanRecord]]:
        """Each once, in the order in which they began to arrive."""
        finished = [trace_id for trace_id, gathering in self._open.items() if self._is_over(gathering, now_seconds)]
        return [list(self._open.pop(trace_id).spans.values()) for trace_id in finished]

    def _is_over(self, gathering: _Gathering, now_seconds: float) -> bool:
        quiet = now_seconds - gathering.changed_seconds
        return quiet >= self._give_up_seconds or (quiet >= self._settle_seconds and gathering.whole())
