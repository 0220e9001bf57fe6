"""What a scraper sees of key/value stores: those that are served now and have loaded."""

from antiphon.errors import Unavailable
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.page_metrics import PageCounts


def _loading() -> PageCounts:
    raise Unavailable("The Talker is still loading its model.")


def test_stores_are_read_when_they_are_scraped_and_only_while_they_are_served() -> None:
    metrics, held = Metrics(), [3]
    read = metrics.registry.get_sample_value
    with metrics.pages.watching("thinker", lambda: PageCounts(held[0], 5, 7, 160, 2)):
        with metrics.pages.watching("talker", _loading):
            held[0] = 4
            assert read("antiphon_pages", {"stage": "thinker", "state": "held"}) == 4
            assert read("antiphon_pages", {"stage": "talker", "state": "held"}) is None
        assert read("antiphon_pages", {"stage": "thinker", "state": "kept"}) == 5
        assert read("antiphon_pages_evicted_total", {"stage": "thinker"}) == 7
        assert read("antiphon_rows_reused_total", {"stage": "thinker"}) == 160
        assert read("antiphon_preemptions_total", {"stage": "thinker"}) == 2
    assert read("antiphon_pages", {"stage": "thinker", "state": "held"}) is None
