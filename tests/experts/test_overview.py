"""What an operator is told of the shards follows from what they tell of themselves."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from antiphon.errors import NotFound
from antiphon.experts.overview import overview
from antiphon.experts.table import ExpertModel, ShardDescription, TrunkRouting
from services.command_line.experts_display import render
from tests.experts.shards import MODEL, description


def fleet() -> list[ShardDescription]:
    pairs = np.ones((2, 4), dtype=np.float32)
    pairs[1, 2] = 5
    asked = TrunkRouting("trunk", 60.0, pairs, {"acme": 9.0, "": 3.0}, {(1, 2): {"acme": 4.0, "birds": 1.0}})
    first = description("first", [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2)], zone="a")
    second = description("second", [(1, 0), (1, 1), (1, 2)], zone="b", is_draining=True)
    return [replace(first, routings=(asked,)), replace(second, routings=(asked,))]


def test_load_copies_and_hot_experts_are_told() -> None:
    seen = overview(fleet(), ["third:1"])
    assert (seen.copies, seen.least_copies, seen.most_copies) == (8, 0, 2)
    assert (seen.missing, seen.missing_experts) == (1, [(1, 3)])
    assert seen.silent == ["third:1"]
    # All of layer 0 and half of 5/8 of layer 1; two of eight and the other half.
    assert [shard.load for shard in seen.shards] == pytest.approx([(1 + 5 / 16) / 2, (2 / 8 + 5 / 16) / 2])
    assert seen.pairs == 12
    hot = seen.hottest[0]
    assert (hot.layer, hot.expert, hot.share, hot.copies) == (1, 2, 5 / 8, ["first:1", "second:1"])
    assert [(each.tenant, each.share) for each in hot.tenants] == [("acme", 0.8), ("birds", 0.2)]
    assert [(each.tenant, each.share) for each in seen.tenants] == [("acme", 0.75), ("", 0.25)]


def test_a_shard_of_another_model_is_named_and_not_counted() -> None:
    other = ExpertModel("bfloat16", 1, 2, 1, 8, 4, "other")
    seen = overview([*fleet(), description("odd", [(0, 0)], model=other)])
    assert seen.strangers == ["odd:1"]
    assert [shard.address for shard in seen.shards] == ["first:1", "second:1"]


def test_even_shards_are_even() -> None:
    halves = [description(name, [key for key in MODEL.keys if key[1] % 2 == odd]) for odd, name in enumerate("ab")]
    seen = overview(halves)
    assert (seen.imbalance, seen.layer_imbalances, seen.missing) == (1.0, [1.0, 1.0], 0)


def test_without_shards_it_says_what_to_do() -> None:
    with pytest.raises(NotFound, match="ANTIPHON_DIRECTORY_EXPERTS"):
        overview([])
    with pytest.raises(NotFound, match="none does at here:1, there:1"):
        overview([], ["there:1", "here:1"])


def test_it_fits_a_terminal() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(render(overview(fleet(), ["third:1"])))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "third:1 does not answer." in text
    assert "1 experts have no copy: 3 of layer 1." in text
    assert "draining" in text
    assert "acme 80%, birds 20%" in text
    assert "Asked for by acme 75%, others 25%." in text
