"""Which pages of the key/value store are free. Numbers only: the tensors belong to `antiphon.model.attention`."""

from collections.abc import Sequence

from antiphon.errors import AtCapacity


class PagePool:
    """`page_count` pages of `page_size` rows each."""

    def __init__(self, page_count: int, page_size: int) -> None:
        if page_count < 1 or page_size < 1:
            raise ValueError(f"Expected pages and rows in them; got {page_count} pages of {page_size} rows.")
        self.page_count = page_count
        self.page_size = page_size
        self._free = list(range(page_count - 1, -1, -1))

    @property
    def free_count(self) -> int:
        return len(self._free)

    @property
    def used_count(self) -> int:
        return self.page_count - len(self._free)

    def pages_for(self, rows: int) -> int:
        return -(-rows // self.page_size)

    def take(self, count: int) -> list[int]:
        if count > len(self._free):
            raise AtCapacity(f"Expected {count} free pages of the key/value store; {len(self._free)} are left.")
        return [self._free.pop() for _ in range(count)]

    def give_back(self, pages: Sequence[int]) -> None:
        self._free.extend(reversed(pages))
