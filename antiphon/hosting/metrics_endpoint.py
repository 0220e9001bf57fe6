"""The process's metrics on a port of their own, for stages that answer no HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

import prometheus_client

from antiphon.errors import Unavailable
from antiphon.telemetry.metrics import process_metrics


@contextmanager
def serving_metrics(port: int | None) -> Iterator[None]:
    """A thread answers scrapes at /metrics; no port, no thread."""
    if port is None:
        yield
        return
    try:
        server, thread = prometheus_client.start_http_server(port, registry=process_metrics().registry)
    except OSError as error:
        raise Unavailable(f"Cannot serve metrics on port {port}: {error.strerror}.") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
