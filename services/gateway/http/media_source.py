"""The bytes of a medium: from a data: URL, bare base64, or a host that the configuration allows.

Fetching a URL that a stranger chose lets him reach what only this server can reach, so no host is allowed by default,
redirects are not followed, and size and time are bounded.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import httpx

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia
from services.gateway.config import GatewaySettings

# Base64 shorter than this is decoded at once; longer takes a thread, not to hold up other turns.
_INLINE_CHARACTERS: Final = 1 << 18
# A multiple of four, so that each slice stands alone.
_SLICE_CHARACTERS: Final = 1 << 18
# Of a data: URL, before its comma.
_HEAD_CHARACTERS: Final = 1024
# Media are packed already; a packed answer could unpack to any size.
_UNPACKED: Final = {"accept-encoding": "identity"}
_NAMED_KINDS: Final = {"image": "an image", "audio": "a sound", "video": "a video"}


@dataclass(slots=True)
class MediaBudget:
    """What is left of one request's media; taking more raises."""

    bytes_left: int
    count_left: int
    bytes_allowed: int
    count_allowed: int

    @classmethod
    def of(cls, settings: GatewaySettings) -> "MediaBudget":
        return cls(settings.media_bytes, settings.media_count, settings.media_bytes, settings.media_count)

    def take_one(self, param: str) -> None:
        self.count_left -= 1
        if self.count_left < 0:
            raise InvalidInput(f"Too many media: a request may hold at most {self.count_allowed}.", param=param)

    def take_bytes(self, count: int, param: str) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooLarge(f"Too much media: a request may hold at most {self.bytes_allowed} bytes of it.", param=param)


class MediaSource:
    def __init__(self, settings: GatewaySettings, client: httpx.AsyncClient) -> None:
        self._hosts = settings.remote_media_hosts
        self._seconds = settings.remote_media_seconds
        self._client = client

    async def read(self, url: str, kind: str, budget: MediaBudget, param: str) -> bytes:
        """The medium behind a URL. `kind` is "image", "audio" or "video"."""
        budget.take_one(param)
        scheme = url[:6].lower()
        if scheme.startswith("data:"):
            data = await _decode(_data_url_base64(url, kind, param), budget, param)
        elif scheme.startswith(("http:/", "https:")):
            data = await self._fetch(url, budget, param)
        else:
            raise InvalidInput(
                f"Invalid value for '{param}': expected {_NAMED_KINDS[kind]} as a data: URL with base64.", param=param
            )
        return _not_empty(data, param)

    async def read_base64(self, data: str, kind: str, budget: MediaBudget, param: str) -> bytes:
        """Bare base64, as OpenAI's input_audio has it; some clients put a URL there."""
        if data[:6].lower().startswith(("data:", "http:/", "https:")):
            return await self.read(data, kind, budget, param)
        budget.take_one(param)
        return _not_empty(await _decode(data, budget, param), param)

    async def _fetch(self, url: str, budget: MediaBudget, param: str) -> bytes:
        host = self._allowed_host(url)
        if host is None:
            raise InvalidInput(
                "Remote media are not fetched from this host. Send the medium itself, as a data: URL with base64.",
                param=param,
                code="remote_media_refused",
            )
        try:
            async with asyncio.timeout(self._seconds), self._client.stream("GET", url, headers=_UNPACKED) as response:
                if response.status_code != httpx.codes.OK:
                    raise UnreadableMedia(f"Expected '{param}' to answer 200; got {response.status_code}.", param=param)
                return b"".join([chunk async for chunk in _counted(response.aiter_raw(), budget, param)])
        except (TimeoutError, httpx.HTTPError) as error:
            late = isinstance(error, TimeoutError | httpx.TimeoutException)
            reason = f" within {self._seconds:g} s" if late else ""
            raise UnreadableMedia(f"The medium at '{param}' could not be fetched{reason}.", param=param) from error

    def _allowed_host(self, url: str) -> str | None:
        try:
            parsed = httpx.URL(url)
            host = parsed.host
        except (httpx.InvalidURL, UnicodeError):  # the latter of names that are no international ones
            return None
        with_port = f"{host}:{parsed.port}" if parsed.port else host
        return with_port if {host, with_port} & self._hosts and not parsed.userinfo else None


async def _counted(chunks: AsyncIterator[bytes], budget: MediaBudget, param: str) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        budget.take_bytes(len(chunk), param)
        yield chunk


def _data_url_base64(url: str, kind: str, param: str) -> str:
    comma = url.find(",", 0, _HEAD_CHARACTERS)
    described = url[len("data:") : max(comma, 0)].lower().split(";")
    if comma < 0 or described[-1].strip() != "base64":
        raise InvalidInput(
            f"Invalid value for '{param}': expected 'data:{kind}/…;base64,…'; the part before the comma differs.",
            param=param,
        )
    if described[0] and not _fits(described[0], kind):
        raise InvalidInput(
            f"Invalid value for '{param}': expected {_NAMED_KINDS[kind]}; the data: URL says '{described[0][:64]}'.",
            param=param,
        )
    return url[comma + 1 :]


async def _decode(text: str, budget: MediaBudget, param: str) -> bytes:
    budget.take_bytes(len(text) * 3 // 4 - text[-2:].count("="), param)
    try:
        if len(text) <= _INLINE_CHARACTERS:
            return _decode_base64(text)
        return await asyncio.to_thread(_decode_base64, text)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f"Invalid value for '{param}': its base64 is broken. Expected standard base64 with padding.",
            param=param,
            code="invalid_base64",
        ) from error


def _decode_base64(text: str) -> bytes:
    """Line breaks, which some encoders add, are no fault. In slices, between which other threads may run: decoding
    holds the interpreter, and a video would hold it long enough to be heard in everyone's speech."""
    if "\n" in text:
        text = text.replace("\r", "").replace("\n", "")
    if text.find("=", 0, -2) >= 0:
        raise ValueError("padding is for the end")
    starts = range(0, len(text), _SLICE_CHARACTERS)
    return b"".join(base64.b64decode(text[start : start + _SLICE_CHARACTERS], validate=True) for start in starts)


def _not_empty(data: bytes, param: str) -> bytes:
    if not data:
        raise UnreadableMedia(f"Invalid value for '{param}': it is empty.", param=param)
    return data


def _fits(media_type: str, kind: str) -> bool:
    """A moving picture may call itself image/gif; application/… says nothing, and the encoders look inside."""
    return media_type.partition("/")[0] in (kind, "application") or (kind, media_type) == ("video", "image/gif")
