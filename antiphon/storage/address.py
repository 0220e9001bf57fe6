"""A Redis URL, read: where the servers are and how to speak to them. Its password shows in no text of ours."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, unquote

from antiphon.errors import InvalidInput

Form = Literal["redis", "unix", "sentinel", "cluster"]

_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_EXPECTED: Final = (
    "redis://[user:password@]host[:port][/database], the same with rediss:// for TLS, unix:///path/to/socket, "
    "redis+sentinel://host[:port],host.../service[/database] or redis+cluster://host[:port],host..."
)
_SCHEME: Final = re.compile(r"(?P<transport>rediss?|unix)(?:\+(?P<form>[a-z]+))?")
# What may follow the question mark.
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class Login:
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    form: Form
    # Host and port of the server, of each sentinel, or of the cluster's nodes that are asked first.
    hosts: tuple[tuple[str, int], ...]
    login: Login
    # The socket's path, for "unix" only.
    path: str = ""
    # What the sentinels call the server, for "sentinel" only.
    service: str = ""
    database: int = 0
    with_tls: bool = False
    # PEM of whom to trust; None trusts whom the system trusts.
    trusted_file: str | None = None
    sentinel_login: Login = Login()

    def __str__(self) -> str:
        """For the operator's log."""
        where = self.path or ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{where} ({self.form}{f' of {self.service}' if self.service else ''})"


def read_address(url: str) -> RedisAddress:
    """Raises InvalidInput, which never quotes the URL: it may hold a password."""
    scheme, separator, rest = url.partition("://")
    found = _SCHEME.fullmatch(scheme)
    if not separator or found is None:
        raise _unexpected("one without a scheme that is known")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    options = _options(query)
    if found["transport"] == "unix":
        return _unix_address(found["form"], hosts, f"/{unquote(path)}", login, options)
    form = _form(found["form"])
    service, database = _service_and_database(form, path, options.get("db"))
    return RedisAddress(
        form=form,
        hosts=_hosts(hosts, form),
        login=_login(login),
        service=service,
        database=database,
        with_tls=found["transport"] == "rediss",
        trusted_file=options.get("ssl_ca_certs"),
        sentinel_login=Login(options.get("sentinel_username"), options.get("sentinel_password")),
    )


def _unix_address(form: str | None, host: str, path: str, login: str, options: dict[str, str]) -> RedisAddress:
    if form is not None or host or path == "/":
        raise _unexpected("a unix:// one that names a host, or no path")
    return RedisAddress("unix", (), _login(login), path=path, database=_database(options.get("db", "0")))


def _form(named: str | None) -> Form:
    if named is None:
        return "redis"
    if named not in get_args(Form) or named in ("redis", "unix"):
        raise _unexpected(f"a scheme that ends in +{named}")
    return "sentinel" if named == "sentinel" else "cluster"


def _service_and_database(form: Form, path: str, asked: str | None) -> tuple[str, int]:
    """The path is /database, /service[/database] of a sentinel, and nothing of a cluster, which has one database."""
    service, _, database = path.partition("/") if form == "sentinel" else ("", "", path)
    if form == "sentinel" and not service:
        raise _unexpected("one of sentinels without the service's name")
    number = _database(asked or database or "0")
    if form == "cluster" and number:
        raise _unexpected("one of a cluster with a database other than 0")
    return unquote(service), number


def _database(text: str) -> int:
    if not text.isdecimal():
        raise _unexpected("a database that is not a number")
    return int(text)


def _hosts(text: str, form: Form) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(item, _SENTINEL_PORT if form == "sentinel" else _REDIS_PORT) for item in text.split(","))
    if form == "redis" and len(hosts) > 1:
        raise _unexpected("several hosts without +sentinel or +cluster")
    return hosts


def _host(text: str, usual_port: int) -> tuple[str, int]:
    """Brackets hold an IPv6 address."""
    found = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.%]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?", text)
    if found is None:
        raise _unexpected("a host that cannot be read")
    return found["six"] or found["name"], int(found["port"] or usual_port)


def _login(text: str) -> Login:
    username, _, password = text.partition(":")
    return Login(unquote(username) or None, unquote(password) or None)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise _unexpected(f"an option other than {', '.join(sorted(_OPTIONS))}")
    return options


def _unexpected(came: str) -> InvalidInput:
    return InvalidInput(f"The URL of Redis (ANTIPHON_REDIS_URL): expected {_EXPECTED}; came {came}.")
