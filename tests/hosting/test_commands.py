"""The commands as an operator runs them: stages alone, the gateway alone, everything in one process, the tracer."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from antiphon.wire.methods import SERVICES
from tests.hosting.processes import Process, running

pytestmark = pytest.mark.slow

QUESTION = {
    "model": "antiphon-nano",
    "messages": [{"role": "user", "content": "What sound does a cow make?"}],
    "modalities": ["text", "audio"],
    "audio": {"voice": "ethan", "format": "pcm16"},
    "temperature": 0,
    "stream": True,
}


def port_in(process: Process) -> int:
    line = process.wait_for(lambda line: "serves on port" in line)
    found = re.search(r"serves on port (\d+)", line)
    assert found is not None
    return int(found[1])


def ask(base_url: str) -> str:
    """The transcript of the spoken answer."""
    transcript = ""
    with httpx.stream("POST", f"{base_url}/v1/chat/completions", json=QUESTION, timeout=60) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    transcript += (choice["delta"].get("audio") or {}).get("transcript") or ""
    return transcript


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def tracer() -> Iterator[tuple[Process, str]]:
    with running("services.command_line", "trace", "--listen", "127.0.0.1:0") as process:
        line = process.wait_for(lambda line: "OTEL_EXPORTER_OTLP_ENDPOINT=" in line)
        yield process, line.rpartition("=")[2]


@pytest.fixture(scope="module")
def stages(tracer: tuple[Process, str]) -> Iterator[dict[str, Process]]:
    with ExitStack() as stack:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": tracer[1]}
        yield {
            stage: stack.enter_context(running("services", stage, "--listen", "127.0.0.1:0", **environment))
            for stage in SERVICES
        }


@pytest.fixture(scope="module")
def gateway(stages: dict[str, Process], tracer: tuple[Process, str]) -> Iterator[Process]:
    addresses = {f"ANTIPHON_DIRECTORY_{stage.upper()}": f"127.0.0.1:{port_in(stages[stage])}" for stage in stages}
    addresses["OTEL_EXPORTER_OTLP_ENDPOINT"] = tracer[1]
    with running("services", "gateway", "--listen", "127.0.0.1:0", **addresses) as process:
        yield process


def test_five_processes_answer_and_their_turn_is_drawn(gateway: Process, tracer: tuple[Process, str]) -> None:
    base_url = f"http://127.0.0.1:{port_in(gateway)}"
    assert httpx.get(f"{base_url}/readyz").json()["status"] == "ready"
    assert "moo" in ask(base_url)
    tracer[0].wait_for(lambda line: "first packet" in line, 20)
    drawn = tracer[0].text
    for name in ("ThinkerService/Generate", "TalkerService/Speak", "CodecService/Decode", "prefill", "POST /v1/chat"):
        assert name in drawn, drawn
    assert {line.split()[0] for line in tracer[0].lines if "Service/" in line} == {
        "gateway",
        "thinker",
        "talker",
        "codec",
    }


def test_a_stage_is_asked_for_its_health(stages: dict[str, Process]) -> None:
    address = f"127.0.0.1:{port_in(stages['codec'])}"
    with running("services", "check", "--listen", address) as check:
        assert (check.ends(), check.text) == (0, "SERVING")
    with running("services", "check", "--listen", "127.0.0.1:1") as check:
        assert (check.ends(), check.text) == (1, "NOT_SERVING")


def test_sigterm_drains_and_readiness_tells(gateway: Process, stages: dict[str, Process]) -> None:
    base_url = f"http://127.0.0.1:{port_in(gateway)}"
    assert stages["codec"].ends(signal.SIGTERM) == 0
    answer = httpx.get(f"{base_url}/readyz")
    assert (answer.status_code, answer.json()["stages"]["codec"]) == (503, False)
    assert gateway.ends(signal.SIGTERM) == 0
    assert stages["encoders"].ends(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("talker", "--listen", "127.0.0.1:0", "--checkpoint", "{empty}"), "config.json"),
        (("talker", "--listen", "256.0.0.1:0"), "Cannot listen on 256.0.0.1:0"),
        (("gateway", "--listen", "127.0.0.1:0"), "Missing option"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    with running("services", *(argument.format(empty=tmp_path) for argument in arguments)) as process:
        assert process.ends() != 0
        assert says in process.text
        assert "Traceback" not in process.text


def test_serve_starts_within_its_time_and_memory_and_stops_clean() -> None:
    with running("services.command_line", "serve", "--port", "0") as process:
        line = process.wait_for(lambda line: "answers at" in line)
        start_cpu_seconds = cpu_seconds(process.pid)
        base_url = line.rpartition(" ")[2].removesuffix("/v1")
        assert base_url in process.wait_for(lambda line: "curl" in line)
        assert "moo" in ask(base_url)
        peak_kilobytes = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1])  # type: ignore[index]
        assert process.ends(signal.SIGTERM) == 0
        assert "Traceback" not in process.text
    assert start_cpu_seconds < 15  # the clock would measure the machine's other work too
    assert peak_kilobytes < 2 << 20
