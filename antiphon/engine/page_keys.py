"""Keys of pages: equal keys mean equal inputs of a page and of all rows before it, in requests that may share them."""

from hashlib import sha256
from typing import Final, Protocol

_DOMAIN: Final = b"antiphon page\0"


class PageKeys(Protocol):
    """What the engine asks a request, on its own thread; without one its pages are its own."""

    def key(self, page: int) -> bytes | None:
        """None while an input of the page, or of one before it, is not known."""
        ...


class KeyChain:
    """Each key is a digest of the one before and of what its page holds; the first one follows from the salt."""

    def __init__(self, salt: bytes) -> None:
        self._keys: list[bytes] = []
        self._newest = sha256(_DOMAIN + salt).digest()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, page: int) -> bytes | None:
        return self._keys[page] if page < len(self._keys) else None

    def append(self, *content: bytes | memoryview) -> None:
        """The inputs of the next page, in parts whose lengths follow from the first of them."""
        digest = sha256(self._newest)
        for part in content:
            digest.update(part)
        self._newest = digest.digest()
        self._keys.append(self._newest)
