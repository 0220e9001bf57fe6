"""A server that answers chat completions in OpenAI's grammar from a script, on a real port."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TIMINGS = {
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "first_packet_ms": {
        "prepare": 1.0, "encoders": 20.0, "thinker": 30.0, "talker": 40.0, "codec": 8.0, "emit": 1.0, "total": 100.0,
    },
    "stages": {"thinker": {"queue_ms": 0.5, "first_output_ms": 29.0, "total_ms": 120.0, "steps": 9}},
}  # fmt: skip
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 17,
    "total_tokens": 47,
    "completion_tokens_details": {"text_tokens": 7, "audio_tokens": 10},
}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def spoken(samples: bytes) -> dict[str, Any]:
    return delta(audio={"id": "audio_1", "data": base64.b64encode(samples).decode()})


FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
LAST = {"choices": [], "usage": USAGE, "timings": TIMINGS}


def answer(*chunks: dict[str, Any], is_whole: bool = True) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([": ping\n\n", *lines, "data: [DONE]\n\n" if is_whole else ""]).encode()


class FakePlatform:
    """status and body are what POST answers; `asked` holds the requests' bodies."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.models: dict[str, Any] = {"object": "list", "data": [{"id": "fake-omni", "object": "model"}]}
        self.asked: list[dict[str, Any]] = []
        self.base_url = ""


@contextmanager
def serving_fake() -> Iterator[FakePlatform]:
    platform = FakePlatform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: platform))
    platform.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(platform: Callable[[], FakePlatform]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, json.dumps(platform().models).encode())

        def do_POST(self) -> None:
            platform().asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(platform().status, platform().body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    return Handler
