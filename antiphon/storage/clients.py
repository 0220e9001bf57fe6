"""An address as a client of redis-py: one server, one found through sentinels, or a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from antiphon.storage.address import Login, RedisAddress
from antiphon.storage.settings import StorageSettings

ClientT = TypeVar("ClientT", Redis, RedisCluster)


class CommandClient(Protocol):
    async def execute_command(self, *command: bytes | str | float) -> Any: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenedClients:
    # Takes the commands.
    commands: CommandClient
    # The sentinels, which only tell where the server is.
    guides: Sequence[CommandClient] = ()


def open_clients(address: RedisAddress, settings: StorageSettings) -> OpenedClients:
    """Nothing is connected before the first command."""
    options = _options(settings) | _tls(address)
    match address.form:
        case "unix":
            one = Redis(unix_socket_path=address.path, db=address.database, **options, **_login(address.login))
            return OpenedClients(_unparsed(one))
        case "redis":
            host, port = address.hosts[0]
            one = Redis(host=host, port=port, db=address.database, **options, **_login(address.login))
            return OpenedClients(_unparsed(one))
        case "sentinel":
            return _through_sentinels(address, options)
        case "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.hosts]
            cluster = RedisCluster(startup_nodes=nodes, **options, **_login(address.login))
            return OpenedClients(_unparsed(cluster))


def _through_sentinels(address: RedisAddress, options: dict[str, Any]) -> OpenedClients:
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs=options | _login(address.sentinel_login),
        db=address.database,
        **options,
        **_login(address.login),
    )
    return OpenedClients(_unparsed(sentinel.master_for(address.service)), tuple(sentinel.sentinels))


def _unparsed(client: ClientT) -> ClientT:
    """Replies stay as Redis sent them; by default some become dictionaries, tuples and truths, each by a rule of its
    own. What a cluster's client asks for itself it must still read."""
    callbacks = client.response_callbacks
    for name in [name for name in callbacks if not str(name).startswith(("CLUSTER", "COMMAND"))]:
        del callbacks[name]
    return client


def _options(settings: StorageSettings) -> dict[str, Any]:
    """One try each: `Storage` repeats, because it knows what may be repeated and until when. Its deadline also holds
    for reading and writing, so that a large value may take longer than a small one."""
    return {
        "socket_connect_timeout": settings.connect_seconds,
        "socket_timeout": None,
        "socket_keepalive": True,
        "max_connections": settings.connections,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "antiphon",
        "protocol": 2,
    }


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {"ssl": True, "ssl_ca_certs": address.trusted_file} if address.with_tls else {}


def _login(login: Login) -> dict[str, Any]:
    return {"username": login.username, "password": login.password}
