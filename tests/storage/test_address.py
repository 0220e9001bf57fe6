"""Every form of URL is read; what cannot be is refused without being quoted."""

import logging

import pytest

from antiphon.errors import InvalidInput
from antiphon.storage.address import Login, RedisAddress, read_address
from antiphon.storage.connection import open_storage
from antiphon.storage.settings import StorageSettings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress("redis", (("cache", 6379),), Login())),
        ("redis://cache:7000/3", RedisAddress("redis", (("cache", 7000),), Login(), database=3)),
        ("redis://[::1]:7000", RedisAddress("redis", (("::1", 7000),), Login())),
        ("redis://ann:p%40ss%2F@cache", RedisAddress("redis", (("cache", 6379),), Login("ann", "p@ss/"))),
        ("redis://:pw@cache", RedisAddress("redis", (("cache", 6379),), Login(None, "pw"))),
        (
            "rediss://cache?ssl_ca_certs=/etc/ca.pem",
            RedisAddress("redis", (("cache", 6379),), Login(), with_tls=True, trusted_file="/etc/ca.pem"),
        ),
        ("unix:///run/redis.sock?db=2", RedisAddress("unix", (), Login(), path="/run/redis.sock", database=2)),
        ("unix://ann:pw@/run/redis.sock", RedisAddress("unix", (), Login("ann", "pw"), path="/run/redis.sock")),
        (
            "redis+sentinel://ann:pw@one:26380,two/main/4?sentinel_password=spw",
            RedisAddress(
                "sentinel",
                (("one", 26380), ("two", 26379)),
                Login("ann", "pw"),
                service="main",
                database=4,
                sentinel_login=Login(None, "spw"),
            ),
        ),
        (
            "rediss+cluster://one,two:7001",
            RedisAddress("cluster", (("one", 6379), ("two", 7001)), Login(), with_tls=True),
        ),
    ],
)
def test_a_url_is_read(url: str, address: RedisAddress) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize(
    ("url", "came"),
    [
        ("ann:s3cret@cache:6379", "without a scheme"),
        ("http://ann:s3cret@cache", "without a scheme"),
        ("redis://ann:s3cret@", "a host that cannot be read"),
        ("redis://ann:s3cret@cache:port", "a host that cannot be read"),
        ("redis://ann:s3cret@one,two", "several hosts"),
        ("redis://ann:s3cret@cache/first", "a database that is not a number"),
        ("redis://ann:s3cret@cache?protocol=3", "an option other than"),
        ("redis+sentinel://ann:s3cret@one", "without the service's name"),
        ("redis+cluster://ann:s3cret@one/1", "a database other than 0"),
        ("redis+proxy://ann:s3cret@one", r"ends in \+proxy"),
        ("unix://ann:s3cret@", "names a host, or no path"),
        ("unix+sentinel://ann:s3cret@one/main", "names a host, or no path"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_and_not_quoted(url: str, came: str) -> None:
    with pytest.raises(InvalidInput, match=came) as refused:
        read_address(url)
    assert "ANTIPHON_REDIS_URL" in refused.value.message
    assert "s3cret" not in refused.value.message


def test_no_text_shows_a_password(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    url = "redis+sentinel://ann:s3cret@one/main?sentinel_password=s3cret"
    monkeypatch.setenv("ANTIPHON_REDIS_URL", url)
    with caplog.at_level(logging.DEBUG):
        settings = StorageSettings()
        assert open_storage(settings) is not None
    shown = (repr(settings), str(settings), repr(read_address(url)), str(read_address(url)), caplog.text)
    assert not any("s3cret" in text for text in shown)
    assert str(read_address(url)) == "one:26379 (sentinel of main)"


def test_without_a_url_there_is_no_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTIPHON_REDIS_URL", raising=False)
    assert open_storage(StorageSettings()) is None
