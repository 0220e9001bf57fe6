"""The books of the page pool, kept beside it: who holds a page, and by which key it is known."""

import pytest

from antiphon.engine.kv_cache import PagePool


def full(page_count: int) -> tuple[PagePool, list[int]]:
    """All pages taken and published, the n-th under the key n."""
    pool = PagePool(page_count, page_size=4)
    pages = pool.take(page_count)
    for number, page in enumerate(pages):
        pool.publish(page, key(number))
    return pool, pages


def key(number: int) -> bytes:
    return bytes([number])


@pytest.mark.parametrize("sharers", [1, 2, 5])
def test_a_page_is_free_when_the_last_of_its_holders_gave_it_back_and_not_before(sharers: int) -> None:
    pool = PagePool(3, page_size=4)
    pages = pool.take(1)
    for _ in range(sharers):
        pool.share(pages)
    for _ in range(sharers):
        pool.give_back(pages)
        assert (pool.is_held(pages[0]), pool.free_count) == (True, 2)
    pool.give_back(pages)
    assert (pool.is_held(pages[0]), pool.free_count, pool.kept_count) == (False, 3, 0)


def test_a_page_that_is_shared_again_after_it_was_kept_has_one_holder() -> None:
    pool, pages = full(2)
    pool.give_back(pages)
    pool.share(pages[:1])
    assert (pool.used_count, pool.kept_count) == (1, 1)
    pool.give_back(pages[:1])
    assert (pool.used_count, pool.kept_count) == (0, 2)


def test_a_page_taken_anew_has_one_holder_whatever_it_had_before() -> None:
    pool, pages = full(1)
    pool.share(pages)
    for _ in range(2):
        pool.give_back(pages)
    assert pool.take(1) == pages
    pool.give_back(pages)
    assert (pool.is_held(pages[0]), pool.free_count) == (False, 1)


def test_an_evicted_page_is_known_by_no_key() -> None:
    pool, pages = full(3)
    pool.give_back(pages)
    assert set(pool.take(2)) == set(pages[1:])
    assert [pool.find(key(number)) for number in range(3)] == [pages[0], None, None]


def test_an_evicted_page_is_known_by_its_next_content_alone() -> None:
    pool, pages = full(1)
    pool.give_back(pages)
    pool.take(1)
    pool.publish(pages[0], key(7))
    assert (pool.find(key(0)), pool.find(key(7))) == (None, pages[0])
    pool.give_back(pages)
    pool.take(1)
    assert pool.find(key(7)) is None


def test_content_that_was_evicted_can_be_published_on_another_page() -> None:
    pool, pages = full(2)
    pool.give_back(pages[:1])
    [anew] = pool.take(1)
    pool.publish(anew, key(0))
    assert pool.find(key(0)) == anew


def test_an_evicted_page_that_holds_nothing_whole_is_free_and_not_kept() -> None:
    pool, pages = full(2)
    pool.give_back(pages)
    pool.give_back(pool.take(2))
    assert (pool.free_count, pool.kept_count, pool.evicted_count) == (2, 0, 2)
