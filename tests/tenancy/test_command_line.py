"""`antiphon keys` and `antiphon usage` against a real Redis."""

import asyncio
import json

import pytest
from typer.testing import CliRunner, Result

from antiphon.storage.connection import Storage
from antiphon.tenancy.opening import open_tenancy
from antiphon.tenancy.settings import TenancySettings
from services.command_line.main import app
from tests.redis_server import RedisServer
from tests.tenancy.test_usage import NOON, record


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    monkeypatch.setenv("ANTIPHON_REDIS_URL", redis_server.url)
    monkeypatch.setenv("ANTIPHON_KEY_PEPPER", "pepper")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_key_is_shown_once_and_alone() -> None:
    made = run("keys", "create", "--tenant", "acme", "--label", "app", "--requests-per-minute", "60")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert key.startswith("antiphon-live-")
    listed = run("keys", "list").stdout
    assert key not in listed
    assert f"{key[:18]}…{key[-4:]}" in listed
    assert "holds" in listed


def test_a_key_is_rotated_and_revoked() -> None:
    old = run("keys", "create", "--tenant", "acme", "--expires-in", "90d")
    key_id = next(word for word in old.stderr.split() if word.startswith("key_"))
    new = run("keys", "rotate", key_id, "--overlap", "30m")
    assert new.stdout.strip() not in ("", old.stdout.strip())
    assert run("keys", "revoke", key_id).exit_code == 0
    states = run("keys", "list", "--tenant", "acme").stdout
    assert "revoked" in states
    assert "until" in states
    assert "holds" not in run("keys", "list", "--tenant", "beta").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "revoke", "key_0"), "no key 'key_0'"),
        (("keys", "create", "--tenant", "a b"), "tenant's name"),
        (("keys", "create", "--tenant", "acme", "--expires-in", "soon"), "such as 90d"),
        (("keys", "create", "--tenant", "acme", "--tokens-per-minute", "1000000001"), "1000000000"),
        (("usage", "export", "--since", "x"), "such as 90d"),
    ],
)
def test_a_fault_is_told_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_redis_it_says_where_keys_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTIPHON_REDIS_URL")
    assert "ANTIPHON_REDIS_URL" in run("keys", "list").stderr


async def test_records_are_exported(storage: Storage) -> None:
    log = open_tenancy(storage, TenancySettings()).usage
    for number, tenant in enumerate(("acme", "acme", "beta")):
        await log.append(record(number, NOON + number, tenant))
    text = (await asyncio.to_thread(run, "usage", "export")).stdout
    assert [json.loads(line)["id"] for line in text.splitlines()] == ["req_0", "req_1", "req_2"]
    assert (await asyncio.to_thread(run, "usage", "export", "--since", "1d")).stdout == ""
