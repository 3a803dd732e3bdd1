"""The tables of the group `live`: models with fresh evidence, judged as a feed is served, by rolling evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.common.pages import NOTHING, markdown_table
from benchmarks.quality.claims import Claim, mean_metric
from benchmarks.quality.comparisons import Comparison, Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, ROLLING, ROLLING_BOUNDS, SLICE_NAMES, block_examples
from benchmarks.quality.sweep import Sweep

GROUP, ABLATION, COLD = "live", "live_ablation", "live_cold"
_METRIC = METRICS[0]
# What parts of the model are looked for in: everything, what is new, and the many clicks on items that hardly began.
_ABLATED = ("rolling", "rolling_0", "rolling_10")
# Frozen: what is cold for a whole test period is many clicks, among cold items and in the whole catalogue.
_OF_COLD = ("cold_among_cold", "cold", "rolling")


def live_tables(sweep: Sweep, results: Results, comparisons: Comparisons, claims: Sequence[Claim]) -> dict[str, str]:
    """Return the tables by the names that their markers in README.md have."""
    if GROUP not in sweep.groups:
        return {}
    reference = str(sweep.groups[GROUP].reference)
    models = [
        f"**{data}** ({_clicks(results, reference, data)})\n\n{models_table(sweep, results, comparisons, data)}"
        for data in sweep.groups[GROUP].data
        if results.seeds(reference, data)
    ]
    ablation = [
        f"**rolling {_METRIC}, {_slice_name(part)}**\n\n{changes_table(sweep, results, comparisons, ABLATION, part)}"
        for part in _ABLATED
    ]
    cold = [
        f"**{_METRIC}, {SLICE_NAMES[part]}**\n\n{changes_table(sweep, results, comparisons, COLD, part)}"
        for part in (_OF_COLD if COLD in sweep.groups else ())
    ]
    return {
        "live": "\n\n".join(models),
        "live_short": short_table(sweep, results),
        "live_ablation": "\n\n".join(ablation),
        "live_cold": "\n\n".join(cold),
        "live_claims": claims_table(claims),
    }


def models_table(sweep: Sweep, results: Results, comparisons: Comparisons, data: str) -> str:
    """Put the experiments of the group side by side, means over seeds, with the reference minus each of them."""
    header = ["model", "seeds", "rolling", "frozen", *(SLICE_NAMES[part] for part in ROLLING_BOUNDS), "gated minus it"]
    reference = str(sweep.groups[GROUP].reference)
    rows = []
    for name in sweep.members(GROUP, data):
        if found := results.seeds(name, data):
            values = [mean_metric(results, name, data, part, _METRIC) for part in ("rolling", "all", *ROLLING_BOUNDS)]
            difference = _difference(comparisons, reference, name, data, "rolling")
            rows.append([sweep.label(name), str(len(found)), *map(_number, values), _interval(difference)])
    return markdown_table(header, rows)


def short_table(sweep: Sweep, results: Results) -> str:
    """Put rolling recall of the group's experiments on all data sets side by side, frozen in brackets."""
    group = sweep.groups[GROUP]
    rows = []
    for name in sweep.members_anywhere(GROUP):
        cells = []
        for data in group.data:
            rolling, frozen = (mean_metric(results, name, data, part, _METRIC) for part in ("rolling", "all"))
            cells.append(NOTHING if rolling is None or frozen is None else f"{rolling:.3f} ({frozen:.3f})")
        if set(cells) != {NOTHING}:
            rows.append([sweep.label(name), *cells])
    return markdown_table([f"{_METRIC}: rolling (frozen)", *group.data], rows)


def changes_table(sweep: Sweep, results: Results, comparisons: Comparisons, group_name: str, part: str) -> str:
    """Put changes of the reference side by side; a cell is a mean over seeds and its difference from the reference."""
    group = sweep.groups[group_name]
    reference = str(group.reference)
    rows = []
    for name in sweep.members_anywhere(group_name):
        cells = []
        for data in group.data:
            value = mean_metric(results, name, data, part, _METRIC)
            found = _difference(comparisons, reference, name, data, part)
            # The interval is of reference minus change; a table of changes reads the other way round.
            change = f" ({_interval(_turned(found))})" if found and value is not None else ""
            cells.append(f"{_number(value)}{change}")
        if set(cells) != {NOTHING}:
            rows.append([sweep.label(name), *cells])
    return markdown_table(["change", *group.data], rows)


def claims_table(claims: Sequence[Claim]) -> str:
    """List the claims of the group, a row each, and for every data set whether it holds."""
    tables = []
    for topic in dict.fromkeys(claim.topic for claim in claims):
        tables.append(_claims_of([claim for claim in claims if claim.topic == topic]))
    return "\n\n".join(tables)


def _claims_of(claims: Sequence[Claim]) -> str:
    """List claims of one topic, which are asked on the same data sets."""
    data_sets = list(dict.fromkeys(claim.data for claim in claims))
    by_place = {(claim.statement, claim.data): claim for claim in claims}
    rows = [
        [statement, *_held(by_place[statement, data] for data in data_sets)]
        for statement in dict.fromkeys(claim.statement for claim in claims)
    ]
    return markdown_table(["claim", *data_sets], rows)


def _held(claims: Iterator[Claim]) -> Iterator[str]:
    for claim in claims:
        if claim.holds is None or claim.is_unmeasured:
            yield claim.found
        else:
            yield f"{'holds' if claim.holds else '**does not hold**'}: {claim.found}"


def _clicks(results: Results, reference: str, data: str) -> str:
    block = next(iter(results.seeds(reference, data).values())).block("test")
    by_exposures = ", ".join(f"{SLICE_NAMES[part]}: {block_examples(block, part):,}" for part in ROLLING_BOUNDS)
    return f"test clicks: {block_examples(block, ROLLING[0]):,}; by exposures as of the click {by_exposures}"


def _slice_name(part: str) -> str:
    return "all clicks" if part == ROLLING[0] else f"{SLICE_NAMES[part]} exposures as of the click"


def _difference(comparisons: Comparisons, reference: str, name: str, data: str, part: str) -> Comparison | None:
    return None if name == reference else comparisons.find(reference, name, data, part, _METRIC)


def _turned(found: Comparison) -> Comparison:
    return found._replace(difference=-found.difference, low=-found.high, high=-found.low)


def _interval(found: Comparison | None) -> str:
    if found is None:
        return NOTHING
    sure = "**" if found.low > 0 or found.high < 0 else ""
    return f"{sure}{found.difference:+.4f}{sure} [{found.low:+.4f}, {found.high:+.4f}]"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
