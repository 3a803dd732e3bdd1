"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.pages import NOTHING, environments_table, markdown_table

Result = Mapping[str, Any]


def read_results(folder: Path) -> list[Result]:
    """What `python -m benchmarks.serving run` left, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def all_tables(results: Sequence[Result]) -> dict[str, str]:
    """Every table by the name that its markers in README.md have."""
    tables = {
        "latency": latency_table(results),
        "correctness": correctness_table(results),
        "memory": memory_table(results),
        "versions": versions_table(results),
        "made_with": environments_table(result["environment"] for result in results),
    }
    return {name: text if results else "No results yet." for name, text in tables.items()}


def latency_table(results: Sequence[Result]) -> str:
    """Requests per second and milliseconds by clients; cores that the server and the clients took."""
    header = ["versions", "clients", "requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "failed", "cores: server",
              "cores: clients"]  # fmt: skip
    rows = [
        [
            result["publish"],
            str(phase["clients"]),
            f"{phase['requests_per_second']:,.1f}",
            *(f"{phase[name]:,.1f}" for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")),
            f"{phase['failures']:,} of {phase['requests'] + phase['failures']:,}",
            f"{phase['server_cores']:.2f}",
            f"{phase['locust_cores']:.2f}",
        ]
        for result in results
        for phase in result["phases"]
    ]
    return markdown_table(header, rows)


def correctness_table(results: Sequence[Result]) -> str:
    """Answers that were held against exact search."""
    header = ["versions", "answers checked", "of these by id", "wrong", "largest error of a score", "recall@k",
              "recall@k of the index when built"]  # fmt: skip
    rows = []
    for result in results:
        answers = result["answers"]
        counts = (answers["checked"], answers["asked_for_by_id"], answers["wrong"])
        recalls = (answers["recall"], answers["index_recall"])
        rows.append([
            result["publish"], *(f"{count:,}" for count in counts), f"{answers['score_error']:.1e}",
            *(NOTHING if recall is None else f"{recall:.4f}" for recall in recalls),
        ])  # fmt: skip
    return markdown_table(header, rows)


def memory_table(results: Sequence[Result]) -> str:
    """Resident memory of the server."""
    header = ["versions", "minutes", "first MB", "highest MB", "MB per minute, last half", "MB per minute, by phase"]
    rows = []
    for result in results:
        memory = result["memory"]
        slopes = [NOTHING if slope is None else f"{slope:+.2f}" for slope in memory["slope_by_phase"]]
        rows.append([
            result["publish"], f"{result['minutes']:g}", f"{memory['mb'][0]:,.0f}", f"{memory['highest_mb']:,.0f}",
            f"{memory['slope_mb_per_minute']:+.2f}", ", ".join(slopes),
        ])  # fmt: skip
    return markdown_table(header, rows)


def versions_table(results: Sequence[Result]) -> str:
    """Versions that came into service, and writes."""
    header = ["versions", "published", "taken into service", "longest load s", "upserts", "upserts/s", "p50 ms",
              "p99 ms", "deletes", "failed"]  # fmt: skip
    rows = []
    for result in results:
        writes, loaded = result["writes"], result["versions"]["loaded"]
        rows.append([
            result["publish"], f"{len(result['versions']['published']):,}", f"{len(loaded):,}",
            f"{max((one['seconds'] for one in loaded), default=0):.2f}", f"{writes['upserts']:,}",
            f"{writes['upserts_per_second']:.1f}", f"{writes['p50_ms']:.1f}", f"{writes['p99_ms']:.1f}",
            f"{writes['deletes']:,}", f"{len(writes['failures']):,}",
        ])  # fmt: skip
    return markdown_table(header, rows)
