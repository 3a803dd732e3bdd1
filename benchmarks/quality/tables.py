"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.common.pages import NOTHING, environments_table, markdown_table
from benchmarks.quality.bias import WARM
from benchmarks.quality.claims import OURS, RIVALS, Claim, dominance_margin, mean_ecology, mean_metric
from benchmarks.quality.comparisons import Comparisons
from benchmarks.quality.live import live_tables
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, SLICE_NAMES, SLICES, block_examples
from benchmarks.quality.sweep import Sweep
from recall.evaluation.metrics import chance

_ABLATED = ("all", "cold", "warm_100")
_CHANGES = ("defaults", "extensions")
_PUBLISHED_AT = (5, 10, 20)


def all_tables(
    sweep: Sweep, results: Results, comparisons: Comparisons, claims: Sequence[Claim], live: Sequence[Claim] = ()
) -> dict[str, str]:
    """Every table by the name that its markers in README.md have; `live` are the claims about rolling evaluation."""
    tables = {"claims": claims_table(claims), "open_claims": open_claims_table(claims)}
    tables["models"] = "\n\n".join(
        f"**{data}** ({_counts(results, data)})\n\n{models_table(sweep, results, data)}"
        for data in sweep.groups["models"].data
        if results.seeds(OURS, data)
    )
    tables["dominance"] = dominance_table(sweep, results)
    tables["ablation"] = "\n\n".join(
        f"**{METRICS[0]}, {SLICE_NAMES[part]}**\n\n{changes_table(sweep, results, comparisons, 'ablation', part)}"
        for part in _ABLATED
    )
    for group in (group for group in _CHANGES if group in sweep.groups):
        tables[group] = changes_table(sweep, results, comparisons, group, "all")
    tables["gate"] = gate_table(sweep, results)
    tables["next_item"] = "\n\n".join(next_item_table(sweep, results, data) for data in sweep.published)
    tables |= live_tables(sweep, results, comparisons, live)
    tables["made_with"] = environment_table(results)
    return {name: text or "No results yet." for name, text in tables.items()}


def claims_table(claims: Sequence[Claim]) -> str:
    """How many claims of each topic hold on each data set."""
    data_sets = list(dict.fromkeys(claim.data for claim in claims))
    rows = []
    for topic in dict.fromkeys(claim.topic for claim in claims):
        cells = []
        for data in data_sets:
            asked = [claim.holds for claim in claims if (claim.topic, claim.data) == (topic, data)]
            asked = [holds for holds in asked if holds is not None]
            cells.append(f"{sum(map(bool, asked))} of {len(asked)}" if asked else NOTHING)
        rows.append([topic, *cells])
    return markdown_table(["claim", *data_sets], rows)


def open_claims_table(claims: Sequence[Claim]) -> str:
    """The claims that do not hold, one a row; those without results are counted."""
    broken = [claim for claim in claims if claim.holds is False]
    rows = [[claim.data, claim.statement, claim.found] for claim in broken if not claim.is_unmeasured]
    parts = [markdown_table(["data", "claim", "found"], rows)] if rows else []
    if unmeasured := len(broken) - len(rows):
        parts.append(f"{unmeasured} claims have no result yet.")
    return "\n\n".join(parts) or "Every claim holds."


def models_table(sweep: Sweep, results: Results, data: str) -> str:
    """Experiments of the group `models` side by side, means over seeds of test metrics."""
    ecology = ("coverage@100", "cold_share@100")
    header = ["model", "all", "ndcg, all", *(SLICE_NAMES[part] for part in SLICES[1:]), *ecology]
    rows = []
    for name in sweep.members("models", data):
        if results.seeds(name, data):
            values = [mean_metric(results, name, data, "all", metric) for metric in METRICS]
            values += [mean_metric(results, name, data, part, METRICS[0]) for part in SLICES[1:]]
            values += [mean_ecology(results, name, data, metric) for metric in ecology]
            rows.append([sweep.label(name), *map(number, values)])
    if rows:
        rows.append(["chance", *_chance(results, data), *[NOTHING] * (len(header) - 5)])
    return markdown_table(header, rows)


def dominance_table(sweep: Sweep, results: Results) -> str:
    """The least margin of our cold/warm curve above each rival's."""
    header = ["data", "warm", *RIVALS]
    rows = []
    for data in sweep.groups["models"].data:
        for warm in WARM:
            margins = [dominance_margin(results, rival, data, warm) for rival in RIVALS]
            if any(margins):
                cells = [f"{margin[0]:+.4f} at {margin[1]:.3f}" if margin else NOTHING for margin in margins]
                rows.append([data, SLICE_NAMES[warm], *cells])
    return markdown_table(header, rows)


def changes_table(sweep: Sweep, results: Results, comparisons: Comparisons, group_name: str, part: str) -> str:
    """Rows change the gated model; cells are a mean over seeds and its paired difference from the gated model."""
    group = sweep.groups[group_name]
    rows = []
    for name in sweep.members_anywhere(group_name):
        cells = [_changed_cell(results, comparisons, group.reference or OURS, name, data, part) for data in group.data]
        if set(cells) != {NOTHING}:
            rows.append([sweep.label(name), *cells])
    return markdown_table(["change", *group.data], rows)


def _changed_cell(results: Results, comparisons: Comparisons, reference: str, name: str, data: str, part: str) -> str:
    value = mean_metric(results, name, data, part, METRICS[0])
    if value is None or name == reference:
        return number(value)
    found = comparisons.find(reference, name, data, part, METRICS[0])
    if found is None:
        return number(value)
    # The interval is of reference minus change; a table of changes reads the other way round.
    low, high = -found.high, -found.low
    sure = "**" if low > 0 or high < 0 else ""
    return f"{value:.4f} ({sure}{-found.difference:+.4f}{sure} [{low:+.4f}, {high:+.4f}])"


def gate_table(sweep: Sweep, results: Results) -> str:
    """Mean behaviour share of the gate by exposures before the test period."""
    rows: list[list[str]] = []
    header: list[str] = []
    for data in sweep.groups["models"].data:
        shares = [result.content["gate_share"] for result in results.seeds(OURS, data).values()]
        if not shares or None in shares:
            continue
        header = ["data", *(_bucket(bucket) for bucket in shares[0])]
        cells = []
        for buckets in zip(*shares, strict=True):
            known = [bucket["share"] for bucket in buckets if bucket["share"] is not None]
            cells.append(f"{np.mean(known):.2f}" if known else NOTHING)
        rows.append([data, *cells])
    return markdown_table(header, rows)


def next_item_table(sweep: Sweep, results: Results, data: str) -> str:
    """Our next-item results beside those published for the same data and protocol."""
    metrics = [f"{name}@{k}" for name in ("hit_rate", "ndcg") for k in _PUBLISHED_AT]
    rows = [
        [model, *(number(value) for name in ("hit_rate", "ndcg") for value in values[name])]
        for model, values in sweep.published[data].items()
    ]
    for name, experiment in sweep.experiments.items():
        if experiment.runs_on(data) and (found := results.seeds(name, data)):
            ours = [mean_metric(results, name, data, "all", metric) for metric in metrics]
            seeds = "one seed" if len(found) == 1 else f"{len(found)} seeds"
            rows.append([f"{sweep.label(name)} ({seeds})", *map(number, ours)])
    return markdown_table(["model", *metrics], rows)


def environment_table(results: Results) -> str:
    """What the results were made with, and how many of them."""
    return environments_table(result.content["environment"] for result in results)


def _counts(results: Results, data: str) -> str:
    result = next(iter(results.seeds(OURS, data).values()))
    block, catalogue = result.block("test"), result.content["catalogue"]
    clicks = ", ".join(f"{SLICE_NAMES[part]} {block_examples(block, part):,}" for part in ("all", "cold", *WARM))
    return f"{catalogue['items']:,} items, {catalogue['cold']['test']:,} of them cold; test clicks: {clicks}"


def _chance(results: Results, data: str) -> Iterator[str]:
    """Cells of recall and ndcg over all, of cold, and of cold among cold."""
    catalogue = next(iter(results.seeds(OURS, data).values()), None)
    if catalogue is None:
        yield from [NOTHING] * 4
        return
    items, cold = catalogue.content["catalogue"]["items"], catalogue.content["catalogue"]["cold"]["test"]
    yield from (number(chance(metric, items)) for metric in METRICS)
    yield number(chance(METRICS[0], items))
    yield number(chance(METRICS[0], cold) if cold else None)


def _bucket(bucket: Mapping[str, int | None]) -> str:
    lower, upper = bucket["from"], bucket["to"]
    return f"≥ {lower}" if upper is None else f"{lower}" if lower == upper else f"{lower}–{upper}"


def number(value: float | None) -> str:
    """Four digits, or a dash for what was not measured."""
    return NOTHING if value is None else f"{value:.4f}"
