"""Comparing runs by hand-made ranks: who is paired with whom, in which slices, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from recall.config.evaluation import EvaluationConfig
from recall.core.errors import RecallError
from recall.evaluation.comparison import Comparison, SliceComparison, compare_runs, differences
from recall.evaluation.ranks import Ranks, RollingRanks, ranks_table, write_ranks

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


USERS = 40


class Example(NamedTuple):
    """A click and where a model ranked it."""

    user: str
    item: str
    time_ms: int
    exposures: int
    rank: int
    among_cold: int = 0
    rolling: tuple[int, int] | None = None  # exposures as of the click, rank


def write_run(
    path: Path, models: Mapping[str, Sequence[Example]], *, configured: str = "gated", **changes: Any
) -> Path:
    """A run directory that holds nothing but ranks."""
    path.mkdir()

    def table(examples: Sequence[Example]) -> pa.Table:
        rolling = [example.rolling for example in examples if example.rolling]
        return ranks_table(
            users=np.array([example.user for example in examples], dtype=object),
            items=pa.array([example.item for example in examples], pa.string()),
            times_ms=np.array([example.time_ms for example in examples], np.int64),
            exposures=np.array([example.exposures for example in examples], np.int64),
            ranks=np.array([example.rank for example in examples], np.int64),
            ranks_among_cold=np.array([example.among_cold for example in examples], np.int64),
            rolling=RollingRanks(*np.array(rolling, np.int64).T) if rolling else None,
        )

    settings: dict[str, Any] = {
        "fingerprint": "f", "catalogue": 100, "made_of": {},
        "evaluation": EvaluationConfig(exposure_buckets=(0, 1, 10, 100)),
    }  # fmt: skip
    tables = {"test": {name: table(examples) for name, examples in models.items()}}
    write_ranks(path, tables, configured=configured, **settings | changes)
    return path


def clicks(rank: int, *, cold_rank: int, among_cold: int) -> list[Example]:
    """Per user a click on a warm item with 20 exposures and one on a cold item."""
    warm = [Example(f"u{user}", f"i{user}", 1000 + user, 20, rank) for user in range(USERS)]
    return warm + [Example(f"u{user}", "new", 5000 + user, 0, cold_rank, among_cold) for user in range(USERS)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """One model that finds everything warm, one that finds everything cold, and a baseline that is as the first."""
    models = {
        "gated": clicks(5, cold_rank=60, among_cold=3),
        "meta_only": clicks(70, cold_rank=20, among_cold=9),
        "popularity": clicks(5, cold_rank=60, among_cold=3),
    }
    return write_run(tmp_path / "run", models)


def by_label(comparison: Comparison) -> dict[str, SliceComparison]:
    return {part.part.label: part for part in comparison.slices}


# What is compared


def test_one_run_holds_its_configured_model_against_every_other(run: Path) -> None:
    comparisons = compare_runs(run)
    sides = [(comparison.first, comparison.second) for comparison in comparisons]
    assert sides == [((str(run), "gated"), (str(run), name)) for name in ("meta_only", "popularity")]
    [only] = compare_runs(run, model="popularity", other="meta_only")
    assert (only.first[1], only.second[1]) == ("popularity", "meta_only")


def test_each_slice_has_its_own_values_and_verdict(run: Path) -> None:
    parts = by_label(compare_runs(run, other="meta_only")[0])
    # recall@50: gated has every warm click and no cold one, meta_only the opposite.
    expected = {
        "all": (80, 0.5, 0.5, "no difference shown"),
        "cold": (40, 0.0, 1.0, "worse"),
        "cold among cold": (40, 1.0, 1.0, "no difference shown"),
        "0 exposures": (40, 0.0, 1.0, "worse"),
        "1–9 exposures": (0, None, None, "no examples"),
        "10–99 exposures": (40, 1.0, 0.0, "better"),
        "≥ 100 exposures": (0, None, None, "no examples"),
    }
    found = {name: (part.examples, part.first, part.second, part.verdict) for name, part in parts.items()}
    assert found == expected


def test_rolling_evaluations_are_compared_by_their_own_ranks_and_exposures(tmp_path: Path) -> None:
    def rolled(rank: int, cold_rank: int) -> list[Example]:
        # What was cold before the period has 3 exposures by its click, but for the first user.
        return [
            example._replace(rolling=(20, rank) if example.exposures else (0 if example.user == "u0" else 3, cold_rank))
            for example in clicks(70, cold_rank=70, among_cold=1)
        ]

    run = write_run(tmp_path / "run", {"gated": rolled(5, 20), "popularity": rolled(5, 90)})
    parts = by_label(compare_runs(run, rolling=True)[0])
    found = {name: (part.examples, part.first, part.second) for name, part in parts.items()}
    assert found == {
        "all": (80, 1.0, 0.5),
        "cold": (1, 1.0, 0.0),
        "0 exposures": (1, 1.0, 0.0),
        "1–9 exposures": (39, 1.0, 0.0),
        "10–99 exposures": (40, 1.0, 1.0),
        "≥ 100 exposures": (0, None, None),
    }
    assert by_label(compare_runs(run)[0])["all"].first == 0.0  # frozen ranks are another matter
    intervals = differences(Ranks.load(run), metric="recall@50", rolling=True)
    assert intervals["all"]["popularity"].difference == pytest.approx(0.5)


def test_a_run_without_rolling_evaluation_has_none_to_compare(run: Path) -> None:
    with pytest.raises(RecallError, match=r"has no rolling evaluation; set evaluation\.refresh"):
        compare_runs(run, rolling=True)


@pytest.mark.parametrize(
    ("metric", "first", "second"),
    [
        ("recall@4", 1.0, 0.0),  # ranks among cold: 3 and 9
        ("hit_rate@9", 1.0, 1.0),
        ("ndcg@10", 1 / np.log2(4), 1 / np.log2(10)),
        ("ndcg@8", 1 / np.log2(4), 0.0),
        ("mrr", 1 / 3, 1 / 9),
    ],
)
def test_any_metric_and_any_cut_off_follows_from_the_ranks(run: Path, metric: str, first: float, second: float) -> None:
    part = by_label(compare_runs(run, other="meta_only", metric=metric)[0])["cold among cold"]
    assert (part.first, part.second) == (pytest.approx(first), pytest.approx(second))
    assert part.interval is not None
    assert part.interval.difference == pytest.approx(first - second)
    assert part.interval.clusters == USERS


def test_examples_are_paired_by_user_item_and_time_whatever_their_order(run: Path, tmp_path: Path) -> None:
    # Users with even numbers are found, in a file that has everything upside down.
    mixed = [
        example._replace(rank=5 if int(example.user[1:]) % 2 == 0 else 90)
        for example in reversed(clicks(5, cold_rank=60, among_cold=3))
    ]
    second = write_run(tmp_path / "second", {"base": mixed}, configured="base")
    [comparison] = compare_runs(run, second)
    assert comparison.second == (str(second), "base")
    assert comparison.unpaired == (0, 0)
    parts = by_label(comparison)
    assert (parts["10–99 exposures"].first, parts["10–99 exposures"].second) == (1.0, 0.5)
    interval = parts["10–99 exposures"].interval
    assert interval is not None
    # Each of 40 users gives 1 or 0: a standard error of 0.5 / sqrt(40) = 0.079, 1.96 of them 0.155.
    assert (interval.low, interval.high) == pytest.approx((0.345, 0.655), abs=0.03)


def test_two_clicks_of_one_millisecond_are_two_pairs(tmp_path: Path) -> None:
    twice = [Example("u", "i", 1, 5, rank) for rank in (1, 99)]
    first = write_run(tmp_path / "first", {"gated": twice})
    second = write_run(tmp_path / "second", {"gated": twice})
    [comparison] = compare_runs(first, second)
    everything = by_label(comparison)["all"]
    assert (everything.examples, everything.first, everything.second) == (2, 0.5, 0.5)
    assert everything.interval is not None
    assert (everything.interval.low, everything.interval.high) == (0, 0)


def test_within_a_run_a_model_that_was_asked_less_is_compared_on_what_it_was_asked(tmp_path: Path) -> None:
    examples = clicks(5, cold_rank=60, among_cold=3)
    run = write_run(tmp_path / "run", {"gated": examples, "gated_trigger": examples[:30]})
    [comparison] = compare_runs(run)
    assert comparison.unpaired == (50, 0)
    assert by_label(comparison)["all"].examples == 30
    assert by_label(comparison)["cold"].verdict == "no examples"


def test_differences_of_the_report_are_those_of_the_comparison(run: Path) -> None:
    found = differences(Ranks.load(run), metric="recall@50")
    assert list(found) == ["all", "cold", "cold_among_cold"]
    for models in found.values():
        assert list(models) == ["meta_only", "popularity"]
    parts = by_label(compare_runs(run, other="meta_only")[0])
    assert found["cold"]["meta_only"] == parts["cold"].interval


# What is refused


def test_runs_with_other_examples_are_refused_with_their_numbers_unless_allowed(run: Path, tmp_path: Path) -> None:
    fewer = write_run(tmp_path / "fewer", {"gated": clicks(5, cold_rank=60, among_cold=3)[10:]})
    message = (
        rf"10 of 80 of gated in {run} and 0 of 70 of gated in {fewer} have no partner, 70 are shared; .*--allow-partial"
    )
    with pytest.raises(RecallError, match=message):
        compare_runs(run, fewer)
    [comparison] = compare_runs(run, fewer, allow_partial=True)
    assert comparison.unpaired == (10, 0)
    assert by_label(comparison)["all"].examples == 70


def test_runs_that_share_nothing_are_refused_whatever_is_allowed(run: Path, tmp_path: Path) -> None:
    later = [example._replace(time_ms=example.time_ms + 1) for example in clicks(5, cold_rank=60, among_cold=3)]
    other = write_run(tmp_path / "later", {"gated": later})
    with pytest.raises(RecallError, match=r"80 of 80 .* 0 are shared; use runs with the same data and split$"):
        compare_runs(run, other, allow_partial=True)


def test_ranks_among_other_items_are_not_compared(run: Path, tmp_path: Path) -> None:
    examples = {"gated": clicks(5, cold_rank=60, among_cold=3)}
    larger = write_run(tmp_path / "larger", examples, catalogue=101)
    with pytest.raises(RecallError, match=r"items ranked 100 in .*run but 101 in .*larger"):
        compare_runs(run, larger)
    seen = write_run(tmp_path / "seen", examples, evaluation=EvaluationConfig(exclude_seen=False))
    with pytest.raises(RecallError, match=r"exclude_seen True in .*run but False in .*seen"):
        compare_runs(run, seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "recall"}, "metric recall: expected recall@K, hit_rate@K or ndcg@K, e.g. recall@50, or mrr"),
        ({"metric": "ndcg@0"}, "metric ndcg@0: expected"),
        ({"model": "gate"}, "model gate: .* has gated, meta_only, popularity on test"),
        ({"other": "base"}, "model base: .* has gated, meta_only, popularity on test"),
        ({"other": "gated"}, "gated with itself shows nothing"),
        ({"split": "train"}, "split train: expected one of test"),
    ],
)
def test_unknown_names_are_refused_with_those_that_are_known(
    run: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecallError, match=message):
        compare_runs(run, **arguments)


# The command


def test_command_prints_a_table_per_model_with_verdicts_in_words(command: Callable[..., Outcome], run: Path) -> None:
    outcome = command("compare", run)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("recall@50 on test: gated against") == 2
    for word in ("better", "worse", "exposures", "0.5000", "+1.0000"):
        assert word in outcome.out


def test_command_as_json_can_be_read_by_programs(command: Callable[..., Outcome], run: Path) -> None:
    outcome = command("compare", run, run, "--other", "meta_only", "--metric", "recall@7", "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    assert (answer["metric"], answer["split"]) == ("recall@7", "test")
    [comparison] = answer["comparisons"]
    assert comparison["first"] == {"run": str(run), "model": "gated", "unpaired": 0}
    warm = next(part for part in comparison["slices"] if part.get("from") == 10)
    assert warm == {
        "slice": "by_exposures", "from": 10, "to": 99, "examples": 40, "users": 40, "first": 1.0, "second": 0.0,
        "difference": 1.0, "low": 1.0, "high": 1.0, "verdict": "better",
    }  # fmt: skip


def test_command_on_a_real_run_and_its_copy_shows_no_difference(
    command: Callable[..., Outcome], finished: Path, copied: Path
) -> None:
    outcome = command("compare", finished, copied, "--json")
    assert outcome.code == 0, outcome.err
    [comparison] = json.loads(outcome.out)["comparisons"]
    metrics = json.loads((finished / "metrics.json").read_text())["test"]["gated"]
    everything, cold = comparison["slices"][:2]
    assert everything["first"] == everything["second"] == pytest.approx(metrics["all"]["recall@50"])
    assert everything["examples"] == metrics["all"]["examples"]
    assert cold["examples"] == metrics["cold"]["examples"]
    assert {part["verdict"] for part in comparison["slices"]} <= {"no difference shown", "no examples"}


def test_command_without_ranks_is_one_clear_line(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("compare", tmp_path)
    assert outcome.code == 1
    assert outcome.out == ""
    [line] = outcome.err.splitlines()
    assert f"not there yet; run `recall evaluate --run {tmp_path}` first" in line
