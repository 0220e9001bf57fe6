"""Who may share what the stages computed before: requests of one key. They see a salt of it; the key goes nowhere."""

from hashlib import sha256
from typing import Final

from starlette.datastructures import Headers

_DOMAIN: Final = b"antiphon cache\0"


def cache_salt(headers: Headers) -> bytes:
    """Requests without a key share among themselves, as those of one key do. The same in every gateway, so that a
    conversation finds its pages again through whichever it comes."""
    _scheme, _, key = headers.get("authorization", "").partition(" ")
    return sha256(_DOMAIN + key.strip().encode()).digest()
