"""One trace as a waterfall of text: who called whom, when, for how long, and when the first output came."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from antiphon.telemetry.first_packet import FirstPacket
from antiphon.telemetry.span_records import SpanRecord

_STAGE_WIDTH: Final = 9
_NAME_WIDTH: Final = 44


@dataclass(frozen=True, slots=True)
class Row:
    span: SpanRecord
    depth: int
    offset_ms: float


def rows(spans: Iterable[SpanRecord]) -> list[Row]:
    """Depth first, children by start; a span whose parent is unknown stands at the top."""
    known = {span.span_id: span for span in spans}
    children: dict[str | None, list[SpanRecord]] = defaultdict(list)
    for span in sorted(known.values(), key=lambda span: (span.start_ns, -span.end_ns)):
        children[span.parent_id if span.parent_id in known else None].append(span)
    if not known:
        return []
    begin_ns = min(span.start_ns for span in known.values())
    found: list[Row] = []
    pending = [(span, 0) for span in reversed(children[None])]
    while pending:
        span, depth = pending.pop()
        found.append(Row(span, depth, (span.start_ns - begin_ns) / 1e6))
        pending.extend((child, depth + 1) for child in reversed(children[span.span_id]))
    return found


def first_packet(spans: Iterable[SpanRecord]) -> FirstPacket | None:
    return next(filter(None, (FirstPacket.from_attributes(span.attributes) for span in spans)), None)


def render(spans: Sequence[SpanRecord], bar_width: int = 48) -> str:
    """The waterfall and, if the trace tells it, the first-packet table."""
    lines = rows(spans)
    if not lines:
        return "(no spans)"
    total_ms = max(row.offset_ms + row.span.duration_ms for row in lines)
    text = [f"trace {spans[0].trace_id}  {total_ms:.1f} ms  {len(lines)} spans"]
    text += [_line(row, total_ms, bar_width) for row in lines]
    packet = first_packet(spans)
    return "\n".join([*text, packet.table()] if packet else text)


def _line(row: Row, total_ms: float, bar_width: int) -> str:
    name = f"{'  ' * row.depth}{row.span.name}{' (failed)' if row.span.failed else ''}"
    label = f"{row.span.stage[:_STAGE_WIDTH]:<{_STAGE_WIDTH}} {_cut(name):<{_NAME_WIDTH}}"
    return f"{label} {row.offset_ms:>8.1f} +{row.span.duration_ms:>8.1f}  {_bar(row, total_ms, bar_width)}".rstrip()


def _bar(row: Row, total_ms: float, width: int) -> str:
    """█ while the span lasts, ◆ where an event lies."""
    scale = width / max(total_ms, 1e-9)
    first = min(int(row.offset_ms * scale), width - 1)
    length = max(1, round(row.span.duration_ms * scale))
    cells = [" "] * first + ["█"] * min(length, width - first)
    begin_ns = row.span.start_ns - round(row.offset_ms * 1e6)
    for event in row.span.events:
        cell = min(int((event.time_ns - begin_ns) / 1e6 * scale), len(cells) - 1)
        cells[max(cell, 0)] = "◆"
    return "".join(cells)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"
