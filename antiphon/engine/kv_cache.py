"""Which pages of the key/value store are free, held or kept. Numbers only: the tensors belong to
`antiphon.model.attention`.

A page is free; or held by one sequence, or by several that begin alike; or kept: nobody holds it, but it is known by
the key of what it holds and is shared again if that comes back, until its place is needed. Only whole pages get a key,
and no row of them is ever written again.
"""

from collections import OrderedDict
from collections.abc import Sequence

from antiphon.errors import AtCapacity


class PagePool:
    """`page_count` pages of `page_size` rows each."""

    def __init__(self, page_count: int, page_size: int) -> None:
        if page_count < 1 or page_size < 1:
            raise ValueError(f"Expected pages and rows in them; got {page_count} pages of {page_size} rows.")
        self.page_count = page_count
        self.page_size = page_size
        # Kept pages whose place was needed, so far.
        self.evicted_count = 0
        self._free = list(range(page_count - 1, -1, -1))
        self._holders = [0] * page_count
        self._page_of_key: dict[bytes, int] = {}
        self._key_of_page: dict[int, bytes] = {}
        # The one that was held longest ago comes first.
        self._kept: OrderedDict[int, None] = OrderedDict()

    @property
    def free_count(self) -> int:
        """Pages that may be taken: the kept ones are given up for it."""
        return len(self._free) + len(self._kept)

    @property
    def used_count(self) -> int:
        return self.page_count - self.free_count

    @property
    def kept_count(self) -> int:
        return len(self._kept)

    def pages_for(self, rows: int) -> int:
        return -(-rows // self.page_size)

    def take(self, count: int) -> list[int]:
        if count > self.free_count:
            raise AtCapacity(f"Expected {count} free pages of the key/value store; {self.free_count} are left.")
        while len(self._free) < count:
            self._evict()
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def give_back(self, pages: Sequence[int]) -> None:
        """From the last to the first, so that of one prompt its end is evicted before its beginning."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0 and page in self._key_of_page:
                self._kept[page] = None
            elif self._holders[page] == 0:
                self._free.append(page)

    def find(self, key: bytes) -> int | None:
        return self._page_of_key.get(key)

    def is_held(self, page: int) -> bool:
        return self._holders[page] > 0

    def share(self, pages: Sequence[int]) -> None:
        """One holder more of pages that were found."""
        for page in pages:
            self._kept.pop(page, None)
            self._holders[page] += 1

    def publish(self, page: int, key: bytes) -> None:
        """The page can be found from now on, unless another with the same content can already."""
        if page not in self._key_of_page and key not in self._page_of_key:
            self._page_of_key[key] = page
            self._key_of_page[page] = key

    def _evict(self) -> None:
        page, _ = self._kept.popitem(last=False)
        del self._page_of_key[self._key_of_page.pop(page)]
        self._free.append(page)
        self.evicted_count += 1
