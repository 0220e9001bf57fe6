"""Rows that need not be computed again: sequences that begin alike share whole pages of the key/value store.

What a page holds is told by its key (`page_keys`). A sequence publishes its pages as they fill up, and takes over those
that others have filled. Pages outlive their sequences until the pool needs them.
"""

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.sequence import RequestT, Sequence


class PrefixCache:
    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        # Rows that were taken over instead of being computed, so far.
        self.reused_rows = 0

    def reusable_pages(self, sequence: Sequence[RequestT]) -> int:
        """Of one that waits: how many pages it would find. Remembers what it found the last time."""
        count, most = sequence.reusable_pages, self._readable_rows(sequence) // self._pool.page_size
        while count > 0 and self._find(sequence, count - 1) is None:
            count -= 1
        while count < most and self._find(sequence, count) is not None:
            count += 1
        sequence.reusable_pages = count
        return count

    def shared_pages(self, sequence: Sequence[RequestT]) -> int:
        """Of one that waits: how many of these pages others hold, so that none is taken from the pool for them."""
        found = (self._find(sequence, page) for page in range(self.reusable_pages(sequence)))
        return sum(page is not None and self._pool.is_held(page) for page in found)

    def adopt(self, sequence: Sequence[RequestT]) -> None:
        """Takes over the pages that follow what it has computed, as far as they are known. Its own beginning of the
        first of them holds the same and is given back."""
        first, found = sequence.computed_rows // self._pool.page_size, self._next_pages(sequence)
        if not found:
            return
        self._pool.share(found)
        self._pool.give_back(sequence.pages[first:])
        # A new list: a step may be reading the old one.
        sequence.pages = [*sequence.pages[:first], *found]
        rows = len(sequence.pages) * self._pool.page_size
        spared = rows - max(sequence.computed_rows, sequence.reached_rows)
        sequence.cached_rows += max(0, spared)
        self.reused_rows += rows - sequence.computed_rows
        sequence.computed_rows = rows
        sequence.published_pages = len(sequence.pages)

    def publish(self, sequence: Sequence[RequestT], computed_rows: int) -> None:
        """Its full pages whose content is known can be found from now on, as far as they have been computed."""
        if sequence.page_keys is None:
            return
        full = min(computed_rows // self._pool.page_size, len(sequence.pages))
        while sequence.published_pages < full:
            key = sequence.page_keys.key(sequence.published_pages)
            if key is None:
                return
            self._pool.publish(sequence.pages[sequence.published_pages], key)
            sequence.published_pages += 1

    def _next_pages(self, sequence: Sequence[RequestT]) -> list[int]:
        size, readable = self._pool.page_size, self._readable_rows(sequence)
        found: list[int] = []
        first = sequence.computed_rows // size
        while (first + len(found) + 1) * size <= readable:
            page = self._find(sequence, first + len(found))
            if page is None:
                break
            found.append(page)
        return found

    def _readable_rows(self, sequence: Sequence[RequestT]) -> int:
        """All but the last, which is computed in any case: an output is sampled from it."""
        if sequence.page_keys is None:
            return 0
        return min(sequence.available_rows, sequence.total_rows - 1)

    def _find(self, sequence: Sequence[RequestT], page: int) -> int | None:
        key = sequence.page_keys.key(page) if sequence.page_keys is not None else None
        return None if key is None else self._pool.find(key)
