"""Writes the page of a closed loop, in the style of a run's report: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.runs.loop.arms import RULES
from recall.runs.loop.measures import MEASURES, OF_DAYS
from recall.runs.loop.summary import ORACLE
from recall.runs.report.html_file import rendered, write_page
from recall.runs.report.tables import DASH, Cell, Row, Table, duration, join

_HEADLINES = ("probability", "good_new_found")


def write_loop_page(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
      path: the file.
      content: loop.json; the first of its arms is what the others are held against.

    Raises:
      ArtifactError: the file cannot be written.
    """
    # Imported here: matplotlib costs a second that no other command should pay.
    from recall.runs.report.drawing import line_styles
    from recall.runs.report.loop_plots import loop_days

    arms = content["arms"]
    first, *others = arms
    kinds = {arm: arm.partition("+")[0] for arm in arms}
    styles = line_styles(
        first, [arm for arm in others if kinds[arm] not in RULES], [arm for arm in others if kinds[arm] in RULES]
    )
    page = rendered(
        "loop.html.j2", title="The closed loop", sentences=sentences(content), facts=_facts(content),
        arms=_arms(content), against=_against(content), matrices=[_matrix(content, name) for name in _HEADLINES],
        measures={name: MEASURES[name] for name in _there(content)},
        plot=loop_days(
            {arm: parts["days"] for arm, parts in arms.items()},
            panels={name: MEASURES[name].label for name in OF_DAYS}, styles=styles,
        ),
        settings=content["settings"],
    )  # fmt: skip
    write_page(path, page, command="recall loop")


def sentences(content: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what was played, and what came of the first arm against the others."""
    settings, arms = content["settings"], list(content["arms"])
    first, seeds = arms[0], settings["seeds"]
    found = [
        f"{len(arms)} arms filled the feed of the same {settings['users']:,} users and {settings['items']:,} items for "
        f"{settings['days']} days each, after a log of {settings['warm_up_days']} days that none of them decided; "
        f"{seeds} {'community' if seeds == 1 else 'communities'}."
    ]
    for measure in _HEADLINES:
        groups: dict[str, list[str]] = {}
        for difference in content["differences"]:
            if difference["arm"] == first and difference["measure"] == measure:
                groups.setdefault(difference["verdict"], []).append(difference["against"])
        texts = {"higher": "above {}", "lower": "below {}", "no difference shown": "not shown to differ from {}"}
        parts = [text.format(join(groups[key])) for key, text in texts.items() if key in groups]
        if parts:
            found.append(f"{MEASURES[measure].label.capitalize()}: {first} is {'; '.join(parts)}.")
    if seeds == 1:
        found.append("With one seed there are no intervals: differences may be chance. Use more --seeds.")
    return found


def _there(content: Mapping[str, Any]) -> list[str]:
    """List the measures that the arms have; without an oracle there is no regret."""
    total = next(iter(content["arms"].values()))["total"]
    return [name for name in MEASURES if name in total]


def _facts(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """List the numbers that are shown large: of the first arm."""
    first, parts = next(iter(content["arms"].items()))
    names = [
        name for name in ("probability", "share_of_oracle", "good_new_found", "gini_authors") if name in parts["total"]
    ]
    return [
        {"label": f"{first}: {MEASURES[name].label}", "value": _shown(parts["total"][name], name),
         "beside": _interval(parts["total"][name], name)}
        for name in names
    ]  # fmt: skip


def _arms(content: Mapping[str, Any]) -> Table:
    """Build the table of all arms and measures; the best of a column is bold where a direction is better."""
    names, rows = _there(content), []
    compared = [parts for arm, parts in content["arms"].items() if arm != ORACLE]
    best = {name: _best([parts["total"][name]["mean"] for parts in compared], name) for name in names}
    best = {name: value for name, value in best.items() if value is not None}
    for number, (arm, parts) in enumerate(content["arms"].items()):
        cells = [
            Cell(
                _shown(parts["total"][name], name),
                arm != ORACLE and parts["total"][name]["mean"] == best.get(name, math.inf),
            )
            for name in names
        ]
        time = Cell(duration(content["cpu_seconds"][arm]))
        kind = "configured" if not number else "aside" if arm.partition("+")[0] in RULES else ""
        rows.append(Row(arm, [*cells, time], kind))
    note = "Mean over the seeds. Bold: the best but the oracle, where it is clear which direction is better."
    return Table("All arms, the whole loop", [*(MEASURES[name].label for name in names), "processor time"], rows, note)


def _against(content: Mapping[str, Any]) -> Table:
    """Build the table of the first arm's differences to the others."""
    first, names = next(iter(content["arms"])), _there(content)
    by_arm: dict[str, dict[str, Mapping[str, Any]]] = {}
    for difference in content["differences"]:
        if difference["arm"] == first:
            by_arm.setdefault(difference["against"], {})[difference["measure"]] = difference
    rows = [Row(f"minus {arm}", [_difference(found[name], name) for name in names]) for arm, found in by_arm.items()]
    note = "Paired over the seeds, with the 95% interval of Student's t. Bold: the interval is off zero."
    return Table(f"{first} against each other arm", [MEASURES[name].label for name in names], rows, note)


def _matrix(content: Mapping[str, Any], measure: str) -> Table:
    """Build the table of all differences of a measure: arm of the row minus arm of the column."""
    arms = list(content["arms"])
    found = {(one["arm"], one["against"]): one for one in content["differences"] if one["measure"] == measure}
    rows = []
    for arm in arms:
        cells = []
        for other in arms:
            if arm == other:
                cells.append(Cell(""))
            elif (arm, other) in found:
                cells.append(_difference(found[arm, other], measure))
            else:
                cells.append(_difference(_turned(found[other, arm]), measure))
        rows.append(Row(arm, cells))
    return Table(f"{MEASURES[measure].label.capitalize()}: row minus column", arms, rows)


def _turned(difference: Mapping[str, Any]) -> dict[str, Any]:
    low, high, mean = (difference[key] for key in ("low", "high", "mean"))
    minus = [None if value is None else -value for value in (mean, high, low)]
    return dict(zip(("mean", "low", "high"), minus, strict=True))


def _difference(one: Mapping[str, Any], measure: str) -> Cell:
    if one["mean"] is None:
        return Cell(DASH)
    digits = MEASURES[measure].digits
    if one["low"] is None:
        return Cell(f"{one['mean']:+.{digits}f}")
    text = f"{one['mean']:+.{digits}f} [{one['low']:+.{digits}f}, {one['high']:+.{digits}f}]"
    return Cell(text, one["low"] > 0 or one["high"] < 0)


def _shown(one: Mapping[str, Any], measure: str) -> str:
    return DASH if one["mean"] is None else f"{one['mean']:.{MEASURES[measure].digits}f}"


def _interval(one: Mapping[str, Any], measure: str) -> str:
    if one["low"] is None:
        return "one seed"
    digits = MEASURES[measure].digits
    return f"95%: {one['low']:.{digits}f} to {one['high']:.{digits}f}"


def _best(values: Sequence[float | None], measure: str) -> float | None:
    known = [value for value in values if value is not None]
    better = MEASURES[measure].better
    if not known or not better:
        return None
    return max(known) if better == "higher" else min(known)
