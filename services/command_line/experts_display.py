"""The expert shards, their placement and what is hot, as tables."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from antiphon.experts.overview import ExpertsOverview, HotExpert, ShardCard, TenantShare

_TENANTS = 3


def render(seen: ExpertsOverview) -> RenderableType:
    parts: list[RenderableType] = [_shards(seen.shards), *_absent(seen), Text(), _placement(seen)]
    if seen.hottest:
        parts += [Text(), _hottest(seen.hottest)]
    if seen.tenants:
        parts += [Text(), Text(f"Asked for by {_shares(seen.tenants, len(seen.tenants))}.")]
    return Group(*parts)


def _shards(shards: list[ShardCard]) -> Table:
    table = Table(box=None)
    for column in ("shard", "host", "zone"):
        table.add_column(column, no_wrap=True)
    for column in ("experts", "load", "busy", "queue p95", "call p50", "trunks"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("state", no_wrap=True)
    for shard in shards:
        table.add_row(
            escape(shard.address),
            escape(shard.host[:12]),
            escape(shard.zone[:12]),
            f"{shard.experts}/{shard.capacity}",
            f"{shard.load:.1%}",
            f"{shard.utilisation:.0%}",
            f"{shard.queued_p95_ms:.2f} ms",
            f"{shard.computed_p50_ms:.2f} ms",
            str(shard.trunks),
            _state(shard),
        )
    return table


def _state(shard: ShardCard) -> str:
    if shard.is_draining:
        return "draining"
    return f"loading {shard.loading}" if shard.loading else "serves"


def _absent(seen: ExpertsOverview) -> list[RenderableType]:
    lines = [f"{escape(address)} does not answer." for address in seen.silent]
    lines += [f"{escape(address)} has experts of another model." for address in seen.strangers]
    return [Text.from_markup(f"[bold red]{line}[/]") for line in lines]


def _placement(seen: ExpertsOverview) -> Text:
    worst = max(range(seen.layers), key=lambda layer: seen.layer_imbalances[layer])
    lines = [
        f"{seen.layers} layers of {seen.experts} experts, {seen.copies} copies: {seen.least_copies} to "
        f"{seen.most_copies} of each.",
        f"The busiest shard has {seen.imbalance:.2f} times the mean load, in layer {worst} "
        f"{seen.layer_imbalances[worst]:.2f} times.",
    ]
    if seen.missing:
        shown = ", ".join(f"{expert} of layer {layer}" for layer, expert in seen.missing_experts[:4])
        lines.append(f"{seen.missing} experts have no copy: {shown}{', …' if seen.missing > 4 else ''}.")
    return Text("\n".join(lines))


def _hottest(hottest: list[HotExpert]) -> Table:
    table = Table(box=None)
    for column in ("layer", "expert", "of its layer", "copies"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("for whom")
    for hot in hottest:
        row = (str(hot.layer), str(hot.expert), f"{hot.share:.1%}", str(len(hot.copies)))
        table.add_row(*row, escape(_shares(hot.tenants, _TENANTS)))
    return table


def _shares(tenants: list[TenantShare], most: int) -> str:
    return ", ".join(f"{each.tenant or 'others'} {each.share:.0%}" for each in tenants[:most])
