"""Who may share what the stages computed before: requests of one tenant, whatever a client may say."""

import hmac
from typing import Final

_DOMAIN: Final = b"antiphon cache\0"


def cache_salt(secret: bytes, tenant: str) -> bytes:
    """The same in every gateway of one secret, so that a conversation finds its pages again through whichever it
    comes; without the secret nobody can make the salt of a tenant whose name he knows."""
    return hmac.digest(secret, _DOMAIN + tenant.encode(), "sha256")
