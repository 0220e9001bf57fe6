"""API keys: `antiphon-<environment>-<random><checksum>`; made once, shown once, kept as a digest.

The checksum tells a mistyped key from a wrong one without asking anybody, and lets scanners of secrets be sure.
The digest is an HMAC under the server's pepper: a key has 256 random bits, so nothing slow is needed to protect it.
"""

import hmac
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final

from antiphon.errors import InvalidInput, Unauthenticated

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 62^43 > 2^256
_RANDOM_CHARACTERS: Final = 43
# 62^6 > 2^32
_CHECKSUM_CHARACTERS: Final = 6
_PREFIX: Final = "antiphon"
_MAX_CHARACTERS: Final = 128
_SHOWN_CHARACTERS: Final = 4


@dataclass(frozen=True, slots=True)
class ApiKey:
    secret: str = field(repr=False)

    @property
    def prefix(self) -> str:
        """What may be shown of its beginning."""
        head, _, random = self.secret.rpartition("-")
        return f"{head}-{random[:_SHOWN_CHARACTERS]}"

    @property
    def last_four(self) -> str:
        return self.secret[-_SHOWN_CHARACTERS:]

    def digest(self, pepper: bytes) -> str:
        return hmac.digest(pepper, self.secret.encode(), "sha256").hex()


def new_api_key(environment: str) -> ApiKey:
    """environment: such as "live" or "test". Raises InvalidInput."""
    if not (environment.isascii() and environment.isalnum() and len(environment) <= 16):
        raise InvalidInput(
            f"A key's environment has 1 to 16 letters and digits; got '{environment[:32]}'.", param="environment"
        )
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    body = f"{_PREFIX}-{environment}-{random}"
    return ApiKey(body + _checksum(body))


def read_api_key(text: str) -> ApiKey:
    """Raises Unauthenticated for what cannot be a key of any server; the message does not quote it."""
    well_formed = len(text) <= _MAX_CHARACTERS and text.isascii() and text.startswith(f"{_PREFIX}-")
    body, checksum = text[:-_CHECKSUM_CHARACTERS], text[-_CHECKSUM_CHARACTERS:]
    if not well_formed or not hmac.compare_digest(_checksum(body), checksum):
        raise Unauthenticated("Incorrect API key: expected one that was made by this server, 'antiphon-…', in full.")
    return ApiKey(text)


def _checksum(body: str) -> str:
    rest, characters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(_ALPHABET))
        characters = _ALPHABET[digit] + characters
    return characters
