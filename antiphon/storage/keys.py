"""What keys are called: `antiphon:{tenant}:kind:id`."""

from typing import Final
from urllib.parse import quote

from antiphon.errors import InvalidInput

MAX_NAME_CHARACTERS: Final = 256


def key_of(tenant: str, kind: str, identifier: str = "") -> str:
    """The braces are Redis's hash tag: a tenant's keys lie on one node of a cluster, so that scripts may touch several.

    Both names are percent-encoded, so that none reaches into another's keys, whatever it holds.
    Raises InvalidInput for a tenant without a name or a name too long.
    """
    for name in (tenant, identifier):
        if len(name) > MAX_NAME_CHARACTERS:
            raise InvalidInput(f"An id has at most {MAX_NAME_CHARACTERS} characters; came {len(name)}.")
    if not tenant:
        raise InvalidInput("A key of the storage needs a tenant's name; came an empty one.")
    key = f"antiphon:{{{_encoded(tenant)}}}:{kind}"
    return f"{key}:{_encoded(identifier)}" if identifier else key


def _encoded(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")
