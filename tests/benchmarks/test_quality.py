"""The quality benchmark: variants with cold items, the bias curve, what counts as up to date, one real run."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.common.frontiers import upper_hull
from benchmarks.quality.bias import LEVELS, bias_curve, least_margin
from benchmarks.quality.commands import spread
from benchmarks.quality.data import DataFolder, content_fingerprint
from benchmarks.quality.results import Results, changed_settings, read_ranks, settings_of
from benchmarks.quality.slices import ROLLING, SLICES, block_value, slice_members, slice_values
from benchmarks.quality.sweep import PlannedRun, Sweep, load_sweep
from benchmarks.quality.variants import (
    draw_cold_items,
    held_out_fractions,
    read_cold_items,
    variant_overrides,
    write_cold_variant,
)
from recall.config.experiment import Config, load_config
from recall.core.errors import ConfigError
from recall.core.ragged import Ragged
from recall.data.prepared import PreparedData
from recall.data.splits import TimeBoundaries, TimeHistogram
from recall.evaluation.ranking import EvaluationSet, ranks
from recall.evaluation.scorers import VectorScorer
from tests.conftest import Experiment

# Variants


@pytest.fixture(scope="module")
def variant(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variant") / "community-cold20"
    write_cold_variant(experiment(), folder, share=0.2, seed=1, fingerprint="x")
    return folder


@pytest.fixture(scope="module")
def prepared_variant(variant: Path, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    from pipelines.training_data import prepare

    directory = tmp_path_factory.mktemp("prepared_variant") / "data"
    prepare(experiment(*variant_overrides(variant)), directory)
    return PreparedData.load(directory)


def test_variant_keeps_the_boundaries(prepared: PreparedData, prepared_variant: PreparedData) -> None:
    assert prepared_variant.manifest["split"] == prepared.manifest["split"]


def test_variant_keeps_every_event_of_the_test_period(prepared: PreparedData, prepared_variant: PreparedData) -> None:
    examples = [data.manifest["counts"]["examples"] for data in (prepared, prepared_variant)]
    assert examples[0]["test"] == examples[1]["test"]
    assert examples[0]["train"] > examples[1]["train"]
    assert examples[0]["validation"] > examples[1]["validation"]


def test_drawn_items_have_no_exposure_before_the_test_period(variant: Path, prepared_variant: PreparedData) -> None:
    drawn = prepared_variant.rows(read_cold_items(variant).test)
    before_test = prepared_variant.posterior("test")
    assert len(drawn) == 30  # a fifth of 150 items
    assert not before_test.exposures[drawn].any()
    assert not prepared_variant.sampling_counts[drawn].any()
    assert prepared_variant.posterior("serving").exposures[drawn].any()


def test_validation_twins_are_cold_in_validation_and_not_in_test(variant: Path, prepared_variant: PreparedData) -> None:
    cold = read_cold_items(variant)
    twins = prepared_variant.rows(cold.validation)
    assert len(twins) == 30
    assert not prepared_variant.posterior("validation").exposures[twins].any()
    assert prepared_variant.posterior("test").exposures[twins].any()
    assert not set(cold.test.to_pylist()) & set(cold.validation.to_pylist())


def test_variant_keeps_all_columns_of_the_log(variant: Path, community: Path) -> None:
    import pyarrow.parquet as pq

    (written,) = variant.glob("events-*.parquet")
    assert pq.read_schema(written).names == pq.read_schema(community / "events.parquet").names


def test_draw_depends_on_the_seed_alone() -> None:
    ids = [f"i{number}" for number in range(50)]
    first = draw_cold_items(pa.array(ids), share=0.2, seed=1, spared="i7")
    again = draw_cold_items(pa.array(ids[::-1]), share=0.2, seed=1, spared="i7")
    other = draw_cold_items(pa.array(ids), share=0.2, seed=2, spared="i7")
    assert first.test == again.test
    assert first.validation == again.validation
    assert first.test != other.test
    assert len(first.test) == len(first.validation) == 10


def test_spared_item_is_never_drawn() -> None:
    ids = [f"i{number}" for number in range(10)]
    for seed in range(30):
        cold = draw_cold_items(pa.array(ids), share=0.4, seed=seed, spared="i3")
        assert "i3" not in {*cold.test.to_pylist(), *cold.validation.to_pylist()}


def test_two_draws_of_half_the_catalogue_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cold_share: found 0\.5"):
        draw_cold_items(pa.array(["a", "b", "c"]), share=0.5, seed=1, spared="a")


@pytest.mark.parametrize("seed", range(5))
def test_fractions_give_back_the_boundaries(seed: int) -> None:
    generator = np.random.default_rng(seed)
    times = np.sort(generator.integers(0, 3000, 2000))  # with ties
    boundaries = TimeBoundaries(int(times[1200]), int(times[1700]))
    fractions = held_out_fractions(times, boundaries)
    assert TimeHistogram.of(times, np.ones(2000, bool)).boundaries(**fractions) == boundaries


# The bias


def test_bias_curve_is_that_of_vectors_with_one_more_dimension() -> None:
    generator = np.random.default_rng(3)
    queries, items = (generator.normal(size=(count, 4)).astype(np.float32) for count in (60, 200))
    exposures = generator.choice([0, 1, 8, 150, 2000], 200)
    targets = generator.integers(0, 200, 60).astype(np.int32)
    seen = Ragged.from_lists([generator.integers(0, 200, 3) for _ in range(60)])
    examples = EvaluationSet(np.arange(60), targets, seen, seen)
    scorer = VectorScorer(queries, items)
    curve = bias_curve(
        scorer, examples, exposures=exposures, exclude_seen=True, levels=(-0.1, 0.0, 0.05, 1.0), block_bytes=20_000
    )
    cold, warm = exposures[targets] == 0, exposures[targets] >= 100
    bias, of_cold, of_warm = (curve[name] for name in ("bias", "cold", "warm_100"))
    assert bias is not None and of_cold is not None and of_warm is not None  # noqa: PT018
    for index, value in enumerate(bias):
        longer = VectorScorer(
            np.c_[queries, np.ones(60)].astype(np.float32),
            np.c_[items, value / (1 + exposures / 5)].astype(np.float32),
        )
        hit = ranks(longer, examples) <= 50
        assert of_cold[index] == pytest.approx(hit[cold].mean())
        assert of_warm[index] == pytest.approx(hit[warm].mean())


def test_largest_bias_puts_cold_items_first() -> None:
    exposures = np.repeat([0, 1000], [20, 80])
    generator = np.random.default_rng(0)
    scorer = VectorScorer(
        generator.normal(size=(50, 4)).astype(np.float32), generator.normal(size=(100, 4)).astype(np.float32)
    )
    nothing = Ragged.from_lists([[]] * 50)
    examples = EvaluationSet(np.arange(50), np.arange(50, dtype=np.int32) % 20, nothing, nothing)
    curve = bias_curve(scorer, examples, exposures=exposures, exclude_seen=True, levels=(0.0, LEVELS[-1]))
    assert curve["cold"] is not None
    assert curve["cold"][0] < 1 == curve["cold"][1]
    assert curve["warm_100"] is None


def test_upper_hull_keeps_what_no_mixture_beats() -> None:
    # (.5, .5) lies below the line from (0, .8) to (1, .4); (.2, .1) is worse than all in both.
    cold, warm = upper_hull(np.array([0.2, 1.0, 0.0, 0.5, 0.6]), np.array([0.1, 0.4, 0.8, 0.5, 0.7]))
    assert cold.tolist() == [0.0, 0.6, 1.0]
    assert warm.tolist() == [0.8, 0.7, 0.4]


def test_least_margin_is_found_between_the_corners_of_both() -> None:
    ours = upper_hull(np.array([0.0, 1.0]), np.array([0.9, 0.5]))
    theirs = upper_hull(np.array([0.0, 0.5]), np.array([0.6, 0.6]))
    # At cold .5 ours leaves .7 and theirs .6, at 0 it is .9 and .6.
    assert least_margin(ours, theirs) == (pytest.approx(0.1), pytest.approx(0.5))


def test_level_that_only_the_other_attains_counts_against() -> None:
    ours = upper_hull(np.array([0.4]), np.array([0.9]))
    theirs = upper_hull(np.array([0.0, 0.6]), np.array([0.5, 0.2]))
    # Right behind .4 ours has nothing left and theirs .5 - .3 * .4 / .6 = .3.
    assert least_margin(ours, theirs) == (pytest.approx(-0.3), pytest.approx(0.4))


# Up to date


def test_result_stands_while_no_setting_changes(experiment: Experiment) -> None:
    stored = json.loads(json.dumps(settings_of(experiment(), is_baseline=False)))
    assert changed_settings(stored, experiment(), is_baseline=False) == []
    changed = changed_settings(stored, experiment("model.loss.triplet=0.0", "data.history=9"), is_baseline=False)
    assert changed == ["data.history", "model.loss.triplet"]


def test_setting_of_the_gate_is_none_of_a_single_towers(experiment: Experiment) -> None:
    with_gate, alone = (f"model.structure={structure}" for structure in ("gated", "single"))
    stored = settings_of(experiment(alone, "model.gate=sum"), is_baseline=False)
    assert changed_settings(stored, experiment(alone, "model.gate=concat"), is_baseline=False) == []
    changed = changed_settings(stored, experiment(with_gate, "model.gate=concat"), is_baseline=False)
    assert changed == ["model.gate", "model.structure"]


def test_folder_of_the_data_is_no_setting(experiment: Experiment) -> None:
    stored = settings_of(experiment("data.events.path=/elsewhere/events.parquet"), is_baseline=False)
    assert changed_settings(stored, experiment(), is_baseline=False) == []
    stored = settings_of(experiment("data.events.path=/elsewhere/others.parquet"), is_baseline=False)
    assert changed_settings(stored, experiment(), is_baseline=False) == ["data.events.path"]


def test_setting_that_the_library_got_since_counts_only_where_it_is_given(experiment: Experiment) -> None:
    stored = settings_of(experiment(), is_baseline=False)
    del stored["model"]["gate_monotone"]
    assert changed_settings(stored, experiment(), is_baseline=False) == []
    given = experiment("model.gate_monotone=true")
    assert changed_settings(stored, given, is_baseline=False) == ["model.gate_monotone"]


def test_result_from_before_fresh_evidence_is_one_without_it(experiment: Experiment) -> None:
    stored = settings_of(experiment(), is_baseline=False)
    del stored["data"]["posterior"]["half_lives"], stored["evaluation"]["refresh"]
    without = ("data.posterior.half_lives=[]", "data.items.published=published_ms")
    assert changed_settings(stored, experiment(*without), is_baseline=False) == []
    changed = changed_settings(stored, experiment(), is_baseline=False)
    assert changed == ["data.posterior.half_lives"]


def test_result_with_a_rolling_part_depends_on_the_time_of_publication(experiment: Experiment) -> None:
    stored = settings_of(experiment(), is_baseline=False)
    changed = changed_settings(stored, experiment("data.items.published=published_ms"), is_baseline=False)
    assert changed == ["data.items.published"]


def test_baseline_depends_on_no_model_setting(experiment: Experiment) -> None:
    stored = settings_of(experiment(), is_baseline=True)
    assert changed_settings(stored, experiment("model.dim=4"), is_baseline=True) == []
    assert changed_settings(stored, experiment("evaluation.exclude_seen=false"), is_baseline=True)


def test_cold_bias_is_all_of_the_index_that_a_result_depends_on(experiment: Experiment) -> None:
    for is_baseline, expected in ((False, ["index.cold_bias"]), (True, [])):
        stored = settings_of(experiment(), is_baseline=is_baseline)
        changed = experiment("index.cold_bias=0.1", "index.kind=exact")
        assert changed_settings(stored, changed, is_baseline=is_baseline) == expected


# The sweep


def test_every_experiment_of_the_sweep_is_a_valid_experiment_file() -> None:
    sweep = load_sweep()
    for run in sweep.plan(seeds=[1]):
        experiment = sweep.experiments[run.experiment]
        path = experiment.config_path(run.data) or sweep.data[run.data].config
        assert isinstance(load_config(path, sweep.overrides(run.experiment, run.data)), Config)


def test_plan_follows_globs_of_group_experiment_and_data() -> None:
    sweep = load_sweep()
    assert sweep.plan(["models/gated/kuairand*"], [1, 2]) == [
        PlannedRun("gated", "kuairand", 1),
        PlannedRun("gated", "kuairand", 2),
        PlannedRun("gated", "kuairand-cold20", 1),
        PlannedRun("gated", "kuairand-cold20", 2),
    ]
    assert {run.seed for run in sweep.plan(["models/popularity/*"])} == {1}
    assert len(sweep.plan()) == len(set(sweep.plan()))


def test_glob_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--only nonsense: matches no GROUP/EXPERIMENT/DATA"):
        load_sweep().plan(["nonsense"])


def test_experiment_of_some_data_sets_is_left_out_of_the_others() -> None:
    sweep = load_sweep()
    assert "clusters_alone" in sweep.members("ablation", "movielens-cold20")
    assert "clusters_alone" not in sweep.members("ablation", "kuairand-cold20")
    anywhere = sweep.members_anywhere("ablation")
    assert anywhere.index("gate_sum") < anywhere.index("gate_concat") < anywhere.index("gate_residual")
    assert len(anywhere) == len(set(anywhere))
    assert "minimal" not in anywhere


def test_groups_set_keys_for_their_experiments_which_win() -> None:
    sweep = load_sweep()
    assert "data.posterior.half_lives=[]" in sweep.overrides("gated", "demo")
    assert not any("half_lives" in pair for pair in sweep.overrides("live_gated", "demo"))
    for group in sweep.groups:
        for experiment in sweep.members_anywhere(group):
            if not group.startswith("live"):
                assert "data.posterior.half_lives=[]" in sweep.overrides(experiment, sweep.groups[group].data[0])
    content = {
        "seeds": [1],
        "data": {"demo": {"config": "demo.yaml"}},
        "groups": {"a": {"data": ["demo"], "set": {"model.dim": 4, "seed": 7}}, "b": {"data": ["demo"]}},
        "experiments": {"small": {"groups": ["a"], "set": {"model.dim": 2}}},
    }
    assert Sweep.model_validate(content).overrides("small", "demo") == ["model.dim=2", "seed=7"]
    content["experiments"] = {"small": {"groups": ["a", "b"]}}
    with pytest.raises(ValueError, match=r"experiments\.small\.groups: a and b set different things"):
        Sweep.model_validate(content)


def test_unknown_key_of_the_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("seeds: [1]\ndata: {}\ngroups: {}\nexperiments: {x: {groups: [a], sett: {}}}")
    with pytest.raises(ConfigError, match=r"experiments.x.sett: unknown key"):
        load_sweep(tmp_path / "sweep.yaml")


def test_option_may_be_followed_by_several_values() -> None:
    arguments = ["run", "--only", "a/*", "b/*", "--seeds", "1", "2", "--jobs", "2"]
    expected = ["run", "--only", "a/*", "--only", "b/*", "--seeds", "1", "--seeds", "2", "--jobs", "2"]
    assert spread(arguments) == expected


# One real run


def test_run_leaves_a_result_that_agrees_with_its_ranks(community: Path, tmp_path: Path) -> None:
    from benchmarks.quality.runner import run_config, why_to_run
    from benchmarks.quality.worker import execute

    sweep = Sweep.model_validate(
        {
            "seeds": [2],
            "data": {"small-cold20": {"config": community / "experiment.yaml", "cold_share": 0.2}},
            "groups": {"models": {"data": ["small-cold20"], "reference": "gated"}},
            "experiments": {"gated": {"groups": ["models"], "set": {"training.epochs": 1, "index.cold_bias": 1000}}},
        }
    )
    folder, results = DataFolder(tmp_path / "out", sweep.data), tmp_path / "results"
    (run,) = sweep.plan()
    config = run_config(sweep, folder, run)
    prepared = folder.prepare(run.data, config)
    assert why_to_run(sweep, run, config, prepared, results=results) == "no result yet"
    execute(sweep, folder, run, command=["run"], results=results)
    assert why_to_run(sweep, run, config, prepared, results=results) is None

    (result,) = Results(results)
    found, block = read_ranks(folder.ranks_path(run), "test"), result.block("test")
    assert len(found.rank) == block["all"]["examples"]
    curve = result.content["bias_curve"]["test"]
    unbiased = curve["level"].index(0.0)
    for part in (*SLICES, *ROLLING):
        values = slice_values(found, part, "recall@50")
        if (expected := block_value(block, part, "recall@50")) is not None:
            assert values.mean() == pytest.approx(expected)
    assert slice_members(found, "rolling").all()
    # A fifth of the catalogue is new in the test period. Some of it has been shown by the time of its clicks.
    assert slice_members(found, "rolling_0").sum() < found.is_cold.sum()
    assert found.is_cold.any()
    cold_items = result.content["catalogue"]["cold"]["test"]
    assert cold_items >= 30
    # Served with a bias far above all scores: every list of 100 begins with all new items. The curve is without it.
    assert result.content["cold_bias"] == 1000
    assert curve["cold"][unbiased] < block_value(block, "cold", "recall@50")
    assert block["ecology"]["cold_share@100"] == pytest.approx(cold_items / 100, abs=0.02)
    shares = [bucket["share"] for bucket in result.content["gate_share"] if bucket["items"]]
    assert shares == sorted(shares)
    assert str(tmp_path) not in json.dumps(result.content)

    longer = run_config(sweep, folder, run).replaced(training={"epochs": 2})
    assert why_to_run(sweep, run, longer, prepared, results=results) == "changed: training.epochs"


def test_blind_gate_gives_every_item_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from benchmarks.quality.interventions import blind_gate
    from recall.model.towers.audience import Audience, AudienceGate
    from recall.model.towers.gate import Gate

    features = tf.constant([[0.0, 0.0, 0.0, 0.0, 0.0], [1.5, 0.7, -0.2, 1.0, 0.9]])
    audience = Audience(tf.zeros([2, 3]), tf.constant([1.0, 50.0]))
    monkeypatch.setattr(Gate, "logits", Gate.logits)  # puts it back after the test, as the next
    monkeypatch.setattr(AudienceGate, "call", AudienceGate.call)
    few, many = AudienceGate(hidden=4)(features, audience).numpy().ravel()
    assert many > few
    new, known = Gate(1, hidden=4, monotone=False)(features).numpy().ravel()
    assert known > new
    blind_gate()
    new, known = Gate(1, hidden=4, monotone=False)(features).numpy().ravel()
    assert known == new
    few, many = AudienceGate(hidden=4)(features, audience).numpy().ravel()
    assert many == few


def test_spelling_of_values_is_no_content_of_the_data(prepared: PreparedData) -> None:
    def changed(name: str) -> bool:
        manifest = copy.deepcopy(prepared.manifest)
        manifest["files"][name] = {"bytes": 1, "crc32c": "00000000"}
        return content_fingerprint(dataclasses.replace(prepared, manifest=manifest)) != content_fingerprint(prepared)

    assert not changed("vocabularies/item/encoder.json")
    assert not changed("vocabularies/user/region.parquet")
    assert changed("vocabularies/item/text.npz")
    assert changed("items.parquet")
    assert changed("train-00000-of-00004.tfrecord")


def test_stored_settings_are_not_changed_by_the_comparison(experiment: Experiment) -> None:
    stored = settings_of(experiment(), is_baseline=False)
    kept = copy.deepcopy(stored)
    changed_settings(stored, experiment("model.dim=4"), is_baseline=False)
    assert stored == kept
