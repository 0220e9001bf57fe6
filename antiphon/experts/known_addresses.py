"""Which addresses of shards to ask: a list of them may be short for a moment, and leaves out who drains."""

from collections.abc import Iterable

from antiphon.errors import AntiphonError, Unavailable


class KnownAddresses:
    """One that is on no list any more is asked until it refuses, or has been silent for `forget_seconds`."""

    def __init__(self, forget_seconds: float) -> None:
        self._forget_seconds = forget_seconds
        self._listed: frozenset[str] = frozenset()
        # When each was on the list or answered last.
        self._heard: dict[str, float] = {}

    def __contains__(self, address: str) -> bool:
        return address in self._heard

    def to_ask(self, listed: Iterable[str], now_seconds: float) -> list[str]:
        """Those that are listed now, and then the others."""
        in_order = list(dict.fromkeys(listed))
        self._listed = frozenset(in_order)
        self._heard |= dict.fromkeys(in_order, now_seconds)
        return in_order + [address for address in self._heard if address not in self._listed]

    def answered(self, address: str, now_seconds: float) -> None:
        self._heard[address] = now_seconds

    def failed(self, address: str, error: AntiphonError, now_seconds: float) -> None:
        if address in self._listed:
            return
        # Nobody is left at an address that refuses.
        if isinstance(error, Unavailable) or self._heard.get(address, now_seconds) < now_seconds - self._forget_seconds:
            self._heard.pop(address, None)
