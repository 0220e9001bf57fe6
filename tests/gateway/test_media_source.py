"""Where the bytes of media come from, and where they never come from."""

import asyncio
import base64
import gzip
import os
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia
from services.gateway.config import GatewaySettings
from services.gateway.http.media_source import MediaBudget, MediaSource

Answer = Callable[[httpx.Request], httpx.Response]


def source(settings: GatewaySettings, answer: Answer) -> MediaSource:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=False)
    return MediaSource(settings, client)


async def arriving(data: bytes) -> AsyncIterator[bytes]:
    yield data


def cat(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=arriving(b"cat"))


def budget(byte_count: int = 100) -> MediaBudget:
    return MediaBudget(byte_count, 4, byte_count, 4)


@pytest.fixture
def open_settings(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"remote_media_hosts": frozenset({"media.example.com", "other.example:8080"})})


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:image/png;base64,Y2F0", "image"),
        ("DATA:image/PNG;BASE64,Y2F0", "image"),
        ("data:application/octet-stream;base64,Y2F0", "video"),
        ("data:;base64,Y2F0", "audio"),
        ("data:image/gif;base64,Y2F0", "video"),
        ("data:audio/wav;rate=16000;base64,Y2\nF0\r\n", "audio"),
    ],
)
async def test_data_urls(settings: GatewaySettings, url: str, kind: str) -> None:
    assert await source(settings, cat).read(url, kind, budget(), "p") == b"cat"


async def test_bare_base64_may_be_a_data_url(settings: GatewaySettings) -> None:
    media = source(settings, cat)
    assert await media.read_base64("Y2F0", "audio", budget(), "p") == b"cat"
    assert await media.read_base64("data:audio/wav;base64,Y2F0", "audio", budget(), "p") == b"cat"
    with pytest.raises(InvalidInput, match="not fetched"):
        await media.read_base64("https://media.example.com/a.wav", "audio", budget(), "p")


async def test_large_base64_is_decoded_aside(settings: GatewaySettings) -> None:
    url = "data:image/png;base64," + "AAAA" * 200_000
    assert len(await source(settings, cat).read(url, "image", budget(1 << 20), "p")) == 600_000
    with pytest.raises(TooLarge):
        await source(settings, cat).read(url, "image", budget(599_999), "p")


@pytest.mark.parametrize("size", [1, 2, 3, 196_607, 196_608, 196_609, 500_000])
async def test_base64_is_decoded_whole(settings: GatewaySettings, size: int) -> None:
    data = os.urandom(size)
    text = base64.b64encode(data).decode()
    assert await source(settings, cat).read_base64(text, "audio", budget(1 << 20), "p") == data


@pytest.mark.parametrize("at", [0, 262_142, 262_143, 400_000])
async def test_padding_in_the_middle_is_broken(settings: GatewaySettings, at: int) -> None:
    text = "A" * at + "=" + "A" * (500_003 - at)
    with pytest.raises(InvalidInput, match="broken"):
        await source(settings, cat).read_base64(text, "audio", budget(1 << 20), "p")


@pytest.mark.parametrize("url", ["https://media.example.com/cat.png", "http://other.example:8080/cat.png"])
async def test_an_allowed_host_is_asked(open_settings: GatewaySettings, url: str) -> None:
    assert await source(open_settings, cat).read(url, "image", budget(), "p") == b"cat"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "https://media.example.com.evil.org/cat.png",
        "https://evil.org@media.example.com/cat.png",
        "https://media.example.com:pw@evil.org/cat.png",
        "http://other.example/cat.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "https://",
        "http://\x00/",
        "http://xn--/",
        "https:///media.example.com",
    ],
)
async def test_other_hosts_are_not(open_settings: GatewaySettings, url: str) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    with pytest.raises(InvalidInput):
        await source(open_settings, never).read(url, "image", budget(), "p")


@pytest.mark.parametrize("scheme", ["file:///etc/passwd", "ftp://media.example.com/a", "gopher://x", "", "cat.png"])
async def test_other_schemes_are_not(open_settings: GatewaySettings, scheme: str) -> None:
    with pytest.raises(InvalidInput):
        await source(open_settings, cat).read(scheme, "image", budget(), "p")


async def test_redirects_are_not_followed(open_settings: GatewaySettings) -> None:
    def redirect(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "media.example.com"
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    with pytest.raises(UnreadableMedia, match="302"):
        await source(open_settings, redirect).read("https://media.example.com/a", "image", budget(), "p")


async def test_a_remote_medium_is_bounded_while_it_arrives(open_settings: GatewaySettings) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 50
            yield b"x" * 50

    media = source(open_settings, lambda _: httpx.Response(200, content=endless()))
    with pytest.raises(TooLarge):
        await media.read("https://media.example.com/a", "image", budget(), "p")
    assert sent <= 200


async def test_a_remote_medium_is_not_unpacked(open_settings: GatewaySettings) -> None:
    """A few bytes of gzip hold megabytes."""
    packed = gzip.compress(bytes(1 << 20))

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, content=arriving(packed), headers={"content-encoding": "gzip"})

    media = source(open_settings, answer)
    assert await media.read("https://media.example.com/a", "image", budget(2_000), "p") == packed


async def test_a_remote_medium_has_a_deadline(open_settings: GatewaySettings) -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    hasty = open_settings.model_copy(update={"remote_media_seconds": 0.05})
    media = source(hasty, lambda _: httpx.Response(200, content=slow()))
    with pytest.raises(UnreadableMedia, match=r"within 0\.05 s"):
        await media.read("https://media.example.com/a", "image", budget(), "p")


async def test_a_host_that_fails_is_the_mediums_fault(open_settings: GatewaySettings) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret internals", request=request)

    with pytest.raises(UnreadableMedia) as raised:
        await source(open_settings, refuse).read("https://media.example.com/a", "image", budget(), "p")
    assert "secret" not in raised.value.message
