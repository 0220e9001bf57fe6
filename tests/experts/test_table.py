"""The table says who holds what, and what nobody does."""

from antiphon.experts.table import ShardTable
from tests.experts.shards import MODEL, description


def test_every_copy_of_an_expert_is_found_under_its_layer() -> None:
    table = ShardTable(MODEL, [description("a", [(0, 0), (1, 3)]), description("b", [(0, 0), (0, 2)])])

    assert table.copies(0).holders == ((0, 1), (), (1,), ())
    assert table.copies(1).holders == ((), (), (), (0,))


def test_what_no_shard_holds_is_told() -> None:
    everything = MODEL.keys
    table = ShardTable(MODEL, [description("a", everything - {(1, 2), (0, 3)})])

    assert table.missing() == [(0, 3), (1, 2)]
    assert ShardTable(MODEL, [description("a", everything)]).missing() == []


def test_a_table_that_is_told_anew_follows_what_shards_hold() -> None:
    table = ShardTable(MODEL, [description("a", [(0, 0)])])

    same = table.told_anew([description("a", [(0, 0)], is_draining=True)])
    other = table.told_anew([description("a", [(0, 1)])])

    assert same.shards[0].is_draining
    assert same.copies(0).holders == table.copies(0).holders == ((0,), (), (), ())
    assert other.copies(0).holders == ((), (0,), (), ())
