"""Keys: made once, kept as digests, and let in for as long as they hold."""

import json
import re

import pytest

from antiphon.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unauthenticated
from antiphon.storage.connection import Storage
from antiphon.tenancy.api_key import new_api_key, read_api_key
from antiphon.tenancy.caller import ANONYMOUS_TENANT, TenantLimits
from antiphon.tenancy.identity import Identities
from antiphon.tenancy.key_desk import KeyDesk, KeyWish
from antiphon.tenancy.memory_registry import MemoryRegistry
from antiphon.tenancy.records import TenantRecord
from antiphon.tenancy.redis_registry import RedisRegistry
from antiphon.tenancy.registry import Registry
from antiphon.tenancy.settings import TenancySettings
from tests.redis_server import RedisServer

PEPPER = b"pepper"


class Clock:
    seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(form: str, request: pytest.FixtureRequest) -> Registry:
    if form == "memory":
        return MemoryRegistry()
    storage: Storage = request.getfixturevalue("storage")
    return RedisRegistry(storage)


@pytest.fixture
def desk(registry: Registry, clock: Clock) -> KeyDesk:
    return KeyDesk(registry, PEPPER, "test", clock)


@pytest.fixture
def identities(registry: Registry, clock: Clock) -> Identities:
    return Identities(registry, settings(), clock)


def settings(**fields: object) -> TenancySettings:
    return TenancySettings(**{"key_pepper": PEPPER.decode(), "key_cache_seconds": 0.0, **fields})  # type: ignore[arg-type]


def test_a_key_is_recognised_and_a_mistyped_one_is_not() -> None:
    key = new_api_key("live")
    assert re.fullmatch(r"antiphon-live-[0-9A-Za-z]{49}", key.secret)
    assert read_api_key(key.secret) == key
    for at in range(len(key.secret)):
        wrong = key.secret[:at] + ("x" if key.secret[at] != "x" else "y") + key.secret[at + 1 :]
        with pytest.raises(Unauthenticated) as refused:
            read_api_key(wrong)
        assert wrong[14:] not in refused.value.message


@pytest.mark.parametrize("sent", ["", "sk-1", "antiphon-", "antiphon-ä-é", "antiphon-live-" + "a" * 1000, "\0" * 60])
def test_what_is_no_key_is_refused(sent: str) -> None:
    with pytest.raises(Unauthenticated):
        read_api_key(sent)


@pytest.mark.parametrize("environment", ["", "a b", "é", "a" * 17])
def test_an_environment_is_a_short_word(environment: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 16"):
        new_api_key(environment)


def test_keys_say_nothing_of_themselves_and_their_digest_depends_on_the_pepper() -> None:
    key = new_api_key("live")
    assert key.secret not in repr(key)
    assert key.digest(b"a") != key.digest(b"b")
    assert len({new_api_key("live").secret for _ in range(100)}) == 100


async def test_without_any_key_everybody_is_one_anonymous_caller(identities: Identities) -> None:
    callers = [await identities.caller(sent) for sent in (None, "sk-anything", new_api_key("live").secret)]
    assert {caller.tenant for caller in callers} == {ANONYMOUS_TENANT}
    assert not any(caller.is_admin for caller in callers)


async def test_keys_that_are_required_are_so_before_there_is_one(registry: Registry) -> None:
    identities = Identities(registry, settings(require_keys=True))
    for sent in (None, "sk-anything", new_api_key("live").secret):
        with pytest.raises(Unauthenticated):
            await identities.caller(sent)


async def test_a_key_makes_its_tenant_and_closes_the_platform_to_others(desk: KeyDesk, identities: Identities) -> None:
    limits = TenantLimits(requests_per_minute=5)
    await desk.create_tenant(TenantRecord(id="acme", limits=limits, weight=2, models=frozenset("ab")), "cli")
    new = await desk.create_key(KeyWish("acme", models=frozenset("bc"), voices=frozenset("v")), "cli")
    caller = await identities.caller(new.key.secret)
    assert (caller.tenant, caller.key_id, caller.weight, caller.limits) == ("acme", new.record.id, 2, limits)
    assert (caller.models, caller.voices) == ({"b"}, {"v"})
    for sent in (None, "sk-anything", new_api_key("live").secret):
        with pytest.raises(Unauthenticated):
            await identities.caller(sent)


async def test_a_key_ends_when_it_expires_is_revoked_or_its_tenant_is_disabled(
    desk: KeyDesk, identities: Identities, clock: Clock
) -> None:
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    short = await desk.create_key(KeyWish("acme", lasts_seconds=60), "cli")
    other = await desk.create_key(KeyWish("acme"), "cli")
    await identities.caller(short.key.secret)
    clock.seconds += 60
    with pytest.raises(Unauthenticated, match="expired"):
        await identities.caller(short.key.secret)
    third = await desk.create_key(KeyWish("acme"), "cli")
    await desk.revoke(third.record.id, "cli")
    with pytest.raises(Unauthenticated, match="revoked"):
        await identities.caller(third.key.secret)
    await desk.change_tenant(TenantRecord(id="acme", disabled=True), "cli")
    with pytest.raises(PermissionDenied, match="disabled"):
        await identities.caller(other.key.secret)


async def test_a_rotated_key_holds_for_the_overlap(desk: KeyDesk, identities: Identities, clock: Clock) -> None:
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    old = await desk.create_key(KeyWish("acme", label="app", is_admin=True), "cli")
    new = await desk.rotate(old.record.id, 30, "cli")
    callers = [await identities.caller(key.key.secret) for key in (old, new)]
    assert all(caller.is_admin and caller.tenant == "acme" for caller in callers)
    assert new.record.label == "app"
    clock.seconds += 30
    with pytest.raises(Unauthenticated, match="expired"):
        await identities.caller(old.key.secret)
    await identities.caller(new.key.secret)
    with pytest.raises(InvalidInput, match="rotated already"):
        await desk.rotate(old.record.id, 30, "cli")


async def test_what_was_read_is_trusted_for_a_moment_only(registry: Registry, desk: KeyDesk) -> None:
    remembering = Identities(registry, settings(key_cache_seconds=60.0, key_cache_count=2))
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    keys = [await desk.create_key(KeyWish("acme"), "cli") for _ in range(3)]
    await remembering.caller(keys[0].key.secret)
    await desk.revoke(keys[0].record.id, "cli")
    await remembering.caller(keys[0].key.secret)
    for key in keys[1:]:  # of more than it may remember the oldest is forgotten
        await remembering.caller(key.key.secret)
    with pytest.raises(Unauthenticated, match="revoked"):
        await remembering.caller(keys[0].key.secret)


async def test_of_two_who_change_the_same_one_is_told(registry: Registry, desk: KeyDesk) -> None:
    tenant = await desk.create_tenant(TenantRecord(id="acme"), "cli")
    with pytest.raises(Conflict):
        await desk.create_tenant(tenant, "cli")
    assert len(await registry.audit("", 10)) == 1, "what did not happen is not in the log"


async def test_what_does_not_exist_is_not_found(desk: KeyDesk) -> None:
    with pytest.raises(NotFound):
        await desk.create_key(KeyWish("nobody"), "cli")
    with pytest.raises(NotFound):
        await desk.revoke("key_0", "cli")


async def test_every_step_is_in_the_audit_log_with_who_did_what(registry: Registry, desk: KeyDesk) -> None:
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    limits = TenantLimits(tokens_per_minute=7)
    await desk.change_tenant(TenantRecord(id="acme", limits=limits), "key_admin")
    new = await desk.create_key(KeyWish("acme"), "cli")
    await desk.revoke(new.record.id, "key_admin")
    told = [entry for _, entry in await registry.audit("", 100)]
    assert [(entry.who, entry.action) for entry in told] == [
        ("cli", "create"),
        ("key_admin", "update"),
        ("cli", "create"),
        ("key_admin", "revoke"),
    ]
    assert told[1].before is not None
    assert (told[1].before["limits"], told[1].after["limits"]) != (told[1].after["limits"], told[1].before["limits"])
    assert told[3].after["disabled"] is True
    assert told[0].before is None
    (first_id, _), *_ = await registry.audit("", 1)
    assert [entry for _, entry in await registry.audit(first_id, 2)] == told[1:3]
    everything = json.dumps([entry.model_dump(mode="json") for entry in told])
    assert new.key.secret not in everything
    assert new.record.digest not in everything


async def test_no_key_is_in_redis(storage: Storage, redis_server: RedisServer) -> None:
    desk = KeyDesk(RedisRegistry(storage), PEPPER, "live")
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    secrets = [(await desk.create_key(KeyWish("acme"), "cli")).key.secret for _ in range(3)]
    redis_server.ask("BGREWRITEAOF")
    kept = b"".join(path.read_bytes() for path in redis_server.folder.rglob("*") if path.is_file())
    assert b"key_" in kept
    assert not any(secret.encode() in kept for secret in secrets)


async def test_keys_are_not_made_without_a_pepper(registry: Registry) -> None:
    desk = KeyDesk(registry, b"", "live")
    await desk.create_tenant(TenantRecord(id="acme"), "cli")
    with pytest.raises(InvalidInput, match="ANTIPHON_KEY_PEPPER"):
        await desk.create_key(KeyWish("acme"), "cli")
