"""Logs: one JSON object a line for machines, one plain line for a terminal; each with its trace id.

What users say never reaches a log: callers log ids, sizes and classes, and a traceback keeps its frames but, above
debug level, not the exception's own text, which may quote an input.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

from antiphon.telemetry import tracing

_FIELDS_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "trace_id"}
_NOISY: Final = ("grpc", "opentelemetry", "httpx", "httpcore")

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure(level: str = "INFO", stream: TextIO | None = None, *, as_json: bool | None = None) -> None:
    """Takes over the root logger. JSON unless the stream is a terminal."""
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.addFilter(_add_trace_id)
    machine = not out.isatty() if as_json is None else as_json
    handler.setFormatter(JsonFormatter() if machine else TerminalFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace_id = getattr(record, "trace_id", None)
        if trace_id:
            fields["trace_id"] = trace_id
        fields.update({key: value for key, value in vars(record).items() if key not in _FIELDS_OF_EVERY_RECORD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - the name is logging's
        return _describe(ei[1])


class TerminalFormatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        trace_id = getattr(record, "trace_id", None)
        line = f"{clock} {record.levelname.lower():<7} {record.getMessage()}{f'  trace {trace_id}' if trace_id else ''}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _describe(error: BaseException | None) -> str:
    if error is None:
        return ""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return "".join(traceback.format_exception(error)).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    return f"{type(error).__qualname__}\n{where}" if where else type(error).__qualname__


def _add_trace_id(record: logging.LogRecord) -> bool:
    record.trace_id = tracing.current_trace_id()
    return True
