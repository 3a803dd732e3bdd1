"""The experiment file: what it means, and how each mistake in it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.config.values import parse_duration_ms
from recall.core.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "data": {"events": {"path": "log*.csv"}, "items": {"path": "sub/items.csv"}},
    "features": {
        "behaviour": [{"name": "item_id", "type": "id"}],
        "meta": [
            {"name": "genre", "type": "category"},
            {"name": "text", "type": "embedding", "path": "text.npy", "clusters": [4, 8]},
        ],
    },
}
Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the minimal experiment, or other content, with overrides."""

    def load_with(*overrides: str, content: Any = None) -> Config:
        path = tmp_path / "experiment.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content or MINIMAL))
        return load_config(path, overrides)

    return load_with


class TestMeaning:
    def test_paths_are_relative_to_the_folder_of_the_file(self, load: Load, tmp_path: Path) -> None:
        config = load()
        assert config.data.events.path == str(tmp_path / "log*.csv")
        assert config.data.items.path == tmp_path / "sub" / "items.csv"
        assert config.features.meta[1].path == tmp_path / "text.npy"  # type: ignore[union-attr]

    def test_overriding_paths_are_relative_to_the_same_folder(self, load: Load, tmp_path: Path) -> None:
        assert load("data.items.path=other.csv").data.items.path == tmp_path / "other.csv"

    def test_absolute_paths_stay(self, load: Load) -> None:
        assert load("data.items.path=/srv/items.csv").data.items.path == Path("/srv/items.csv")

    def test_click_may_be_a_column_or_a_rule(self, load: Load) -> None:
        assert load().data.events.click is None
        flag = load("data.events.click=is_click").data.events.click
        rated = load("data.events.click={column: rating, at_least: 4}").data.events.click
        assert flag is not None
        assert rated is not None
        assert (flag.column, flag.at_least) == ("is_click", 1.0)
        assert (rated.column, rated.at_least) == ("rating", 4.0)

    def test_a_weight_may_be_a_column_or_rules(self, load: Load) -> None:
        assert load().data.events.weight is None
        number = load("data.events.weight=watched_s").data.events.weight
        rules = load(
            "data.events.weight=[{column: long_view, weight: 2}, {column: stars, at_least: 4, weight: 3}]"
        ).data.events.weight
        assert number is not None
        assert rules is not None
        assert (number.column, number.rules) == ("watched_s", ())
        assert [(rule.column, rule.at_least, rule.weight) for rule in rules.rules] == [
            ("long_view", 1, 2),
            ("stars", 4, 3),
        ]

    def test_sequences_have_an_order_and_no_clock(self, load: Load) -> None:
        config = load("data.events.format=sequences", "data.split.by=last_click")
        assert config.data.events.time_unit == "order"

    def test_resolved_experiment_loads_as_itself(self, load: Load) -> None:
        weight = "data.events.weight=[{column: is_like, weight: 2}]"
        config = load("data.posterior.delay=30m", "model.gate=concat", "data.events.click=is_click", weight)
        assert load(content=config.to_yaml()) == config

    def test_a_step_changes_its_section_and_leaves_the_rest(self, load: Load) -> None:
        config = load("model.dim=32")
        changed = config.replaced(model={"structure": "base"}, seed=9)
        assert (changed.model.structure, changed.model.dim, changed.seed) == ("base", 32, 9)
        assert changed.data == config.data
        assert config.model.structure == "gated"

    def test_a_step_is_validated(self, load: Load) -> None:
        with pytest.raises(ConfigError, match=r"model\.structure"):
            load().replaced(model={"structure": "triple"})

    def test_a_loaded_experiment_cannot_be_changed(self, load: Load) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load().seed = 3

    def test_a_date_as_a_name_is_text(self, load: Load) -> None:
        assert load("data.items.id=2024-01-01").data.items.id == "2024-01-01"


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "milliseconds"),
        [("500ms", 500), ("90s", 90_000), ("30m", 1_800_000), ("1.5h", 5_400_000), ("7d", 604_800_000), (250, 250)],
    )
    def test_units_become_milliseconds(self, text: str | int, milliseconds: int) -> None:
        assert parse_duration_ms(text) == milliseconds

    @pytest.mark.parametrize("text", ["1 fortnight", "h", "-1h", "1.5", "", "None", "1h30m"])
    def test_other_text_is_refused(self, load: Load, text: str) -> None:
        with pytest.raises(ConfigError, match=r"data\.posterior\.delay: expected a duration like 30m, 1h or 7d"):
            load(f"data.posterior.delay={text!r}")

    def test_the_content_term_is_there_where_items_have_embeddings_and_a_meta_tower_reads_them(
        self, load: Load
    ) -> None:
        auto = "model.content_term=auto"
        assert load(auto).content_term == 64
        assert load("model.content_term=8").content_term == 8
        for structure, dim in {"base": 64, "meta_only": 64, "single": 0, "behaviour_only": 0}.items():
            assert load(auto, f"model.structure={structure}").content_term == dim
        assert load(auto, "features.meta=[{name: tags, type: tags}]").content_term == 0

    def test_alignment_is_of_the_structure_that_nothing_else_aligns(self, load: Load) -> None:
        assert load("model.loss.triplet=null").model.alignment == 0
        assert load("model.loss.triplet=null", "model.structure=base").model.alignment == 0.3
        assert load("model.loss.triplet=0.1").model.alignment == 0.1

    def test_half_lives_are_longer_than_nothing_and_rise(self, load: Load) -> None:
        assert load("data.posterior.half_lives=[90m, 3d]").data.half_lives_ms == (5_400_000, 259_200_000)
        assert load("data.posterior.half_lives=[]").data.half_lives_ms == ()
        with pytest.raises(ConfigError, match=r"data\.posterior\.half_lives: .*longer than 0.*found 0 ms"):
            load("data.posterior.half_lives=[0h, 1d]")
        with pytest.raises(ConfigError, match=r"data\.posterior\.half_lives: .*shortest first"):
            load("data.posterior.half_lives=[1d, 2h]")

    def test_without_a_clock_or_by_last_click_there_is_no_fresh_evidence(self, load: Load) -> None:
        assert load().data.half_lives_ms
        assert load("data.split={by: last_click}").data.half_lives_ms == ()
        assert load("data.split={by: last_click}", "data.events.time_unit=order").data.half_lives_ms == ()

    def test_a_bucket_lasts_at_least_a_millisecond(self, load: Load) -> None:
        with pytest.raises(ConfigError, match=r"data\.posterior\.bucket: .*found 0"):
            load("data.posterior.bucket=0h")


class TestOverrides:
    def test_value_is_yaml(self, load: Load) -> None:
        config = load("evaluation.k=[1, 7]", "model.gate_monotone=true", "training.learning_rate=1e-4")
        assert config.evaluation.k == (1, 7)
        assert config.model.gate_monotone is True
        assert config.training.learning_rate == 1e-4

    def test_numbers_in_the_key_count_list_entries(self, load: Load) -> None:
        config = load("features.meta.1.clusters=[2, 6]", "features.meta.0={name: tag, type: tags}")
        assert config.features.meta[1].clusters == (2, 6)  # type: ignore[union-attr]
        assert config.features.meta[0].type == "tags"

    def test_a_section_that_the_file_lacks_is_made(self, load: Load) -> None:
        assert load("model.cold_simulation.enabled=false").model.cold_simulation.enabled is False

    def test_later_overrides_win(self, load: Load) -> None:
        assert load("seed=4", "seed=5").seed == 5

    def test_value_may_hold_an_equals_sign(self, load: Load) -> None:
        assert load("data.items.title=a=b").data.items.title == "a=b"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("training.epochs", r"--set training\.epochs: expected dotted\.key=value"),
            ("=3", "expected dotted.key=value"),
            ("features.meta.7.name=x", "7 is not a section"),
            ("features.meta.x=1", r"features\.meta is not a section"),
            ("model.dim=[", "not valid YAML"),
        ],
    )
    def test_key_that_leads_nowhere_is_refused(self, load: Load, override: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load(override)


class TestMistakes:
    @pytest.mark.parametrize(
        ("override", "key", "told"),
        [
            ("model.dimm=3", "model.dimm", "unknown key; check the spelling"),
            ("modell={}", "modell", "unknown key"),
            ("features.meta.0.separator='|'", "features.meta[0].separator", "unknown key"),
            ("model.dim=wide", "model.dim", "found 'wide'"),
            ("model.dim=1.5", "model.dim", "found 1.5"),
            ("model.dim=0", "model.dim", "found 0"),
            ("model.dim=true", "model", "dim cannot be true"),
            ("model.dropout=1", "model.dropout", "found 1"),
            (
                "model.loss={softmax: full, negatives: none}",
                "model.loss",
                "use negatives: exposed or negatives: catalogue",
            ),
            ("training.ema=1", "training.ema", "found 1"),
            ("training.epochs=null", "training.epochs", "found None"),
            ("training.learning_rate=.inf", "training.learning_rate", "finite"),
            ("data.events.click={column: rating, at_least: .nan}", "data.events.click.at_least", "finite"),
            ("data.events.click={at_least: 4}", "data.events.click.column", "is missing; add it"),
            ("data.events.weight=[]", "data.events.weight", "either the name of a column"),
            ("data.events.weight=[{column: x, weight: 0}]", "data.events.weight.rules[0].weight", "found 0"),
            ("data.events.weight=[{column: x}]", "data.events.weight.rules[0].weight", "is missing; add it"),
            ("data.events={path: x.txt, format: sequences, weight: x}", "data.events", "hold ids alone"),
            ("data.events=null", "data.events", "expected a section with keys"),
            ("data.items.path=", "data.items.path", "expected a path"),
            ("data.items.id=5", "data.items.id", "expected text"),
            ("data.events.time_unit=minutes", "data.events.time_unit", "found 'minutes'"),
            ("data.events.time_zone=Mars/Olympus", "data.events.time_zone", "found 'Mars/Olympus'"),
            ("data.split.by=user", "data.split.by", "'time' or 'last_click', found 'user'"),
            ("data.split.test=0", "data.split.test", "found 0"),
            ("data.split={validation: 0.6, test: 0.4}", "data.split", "validation + test must stay below 1"),
            ("data.split={validation: 0.1, test: 1d}", "data.split", "both as durations, like 1d; found one of each"),
            ("data.split.test=7", "data.split.test", "a duration of a minute or more like 1d"),
            ("evaluation.refresh=0h", "evaluation.refresh", "above zero like 30m, 1h or 1d"),
            ("evaluation.refresh=hourly", "evaluation.refresh", "expected a duration"),
            ("model.history_time=days", "model.history_time", "found 'days'"),
            ("data.events.time_unit=order", "data", "use split: {by: last_click}"),
            ("features.meta.0.type=idd", "features.meta[0].type", "found idd; expected id, category, tags"),
            ("features.meta.0={name: x}", "features.meta[0]", "has no type"),
            ("features.meta.0.name=two words", "features.meta[0].name", "found 'two words'"),
            ("features.meta.0.type=id", "features", "genre is an id"),
            ("features.meta.1.clusters=[32, 100]", "features.meta[1]", "100 has to be a multiple of 32"),
            ("features.meta.1.clusters=32", "features.meta[1].clusters", "expected a list"),
            ("features.meta.1.clusters=[0]", "features.meta[1].clusters[0]", "found 0"),
            ("features.meta=[]", "experiment", "gated needs features.meta"),
            ("features.behaviour=[]", "experiment", "gated needs features.behaviour"),
            ("features.user=[{name: age, type: number}]", "experiment", "data.users names no file"),
            ("evaluation.k=[]", "evaluation.k", "at least one entry"),
            ("evaluation.exposure_buckets=[1, 10]", "evaluation", "start at 0"),
            ("index.shards=0", "index.shards", "found 0"),
            ("index.shards=2.5", "index.shards", "found 2.5"),
            ("index.target_recall=1.5", "index.target_recall", "found 1.5"),
            ("model.interests.count=0", "model.interests.count", "found 0"),
            ("model.interests.counts=2", "model.interests.counts", "unknown key"),
            ("model.interests.extractor=mean", "model.interests.extractor", "found 'mean'"),
            ("model={query: trigger, interests: {count: 2}}", "model", "use query: user or both, or remove interests"),
            ("index.cold_bias=soon", "index.cold_bias", "expected auto or a finite number, e.g. 0.05, found 'soon'"),
            ("index.cold_bias=null", "index.cold_bias", "expected auto or a finite number, e.g. 0.05, found None"),
            ("index.cold_bias=.nan", "index.cold_bias", "finite"),
            ("index.cold_bias=true", "index", "cold_bias cannot be true"),
            ("index.cold_bias_tolerance=1", "index.cold_bias_tolerance", "found 1"),
            ("index.cold_bias_tolerance=-0.1", "index.cold_bias_tolerance", "found -0.1"),
            ("model.cold_simulation.unseen=1.2", "model.cold_simulation.unseen", "found 1.2"),
            ("model.loss.towers_move_query=3", "model.loss.towers_move_query", "found 3"),
            ("model.loss.label_smoothing=1", "model.loss.label_smoothing", "found 1"),
            ("model.loss.label_smoothing=0.1", "model.loss", "use softmax: full, or remove label_smoothing"),
            (
                "model={loss: {softmax: full, label_smoothing: 0.1}, interests: {count: 2}}",
                "model",
                "interests or item_codes make several; remove one or the other",
            ),
            ("model.appeal=0.5", "model.appeal", "found 0.5"),
            ("model.loss.item=0", "model", "loss.item 0 leaves nothing that trains the query side"),
        ],
    )
    def test_message_names_the_key_and_what_is_wrong(self, load: Load, override: str, key: str, told: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(override)
        message = str(caught.value)
        assert f"experiment.yaml: {key}: " in message
        assert told in message
        assert "\n" not in message, "one mistake, one line"

    def test_every_mistake_is_listed(self, load: Load) -> None:
        with pytest.raises(ConfigError, match=r"(?s)model\.dim: .*\n  training\.epochs: "):
            load("model.dim=-1", "training.epochs=-1")

    def test_transformer_heads_divide_the_width(self, load: Load) -> None:
        load("model.transformer.heads=3")
        with pytest.raises(ConfigError, match=r"dim 64 has to be a multiple of transformer\.heads 3"):
            load("model.transformer.heads=3", "model.history_encoder=transformer")

    def test_rolling_evaluation_is_hourly_where_there_is_a_test_period(self, load: Load) -> None:
        assert load().refresh_ms == load("evaluation.refresh=1h").refresh_ms == 3_600_000
        assert load("evaluation.refresh=6h").refresh_ms == 21_600_000
        assert load("data.posterior.bucket=1d").refresh_ms == 86_400_000
        for off in ("none", "null"):
            config = load(f"evaluation.refresh={off}")
            assert (config.refresh_ms, config.why_frozen) == (None, "evaluation.refresh is none")
        ordered = load("data.events.time_unit=order", "data.split.by=last_click")
        assert (ordered.refresh_ms, "has no clock" in str(ordered.why_frozen)) == (None, True)
        scattered = load("data.split.by=last_click")
        assert (scattered.refresh_ms, "has no test period" in str(scattered.why_frozen)) == (None, True)

    def test_a_refresh_shorter_than_a_bucket_names_both(self, load: Load) -> None:
        match = r"evaluation\.refresh 30m is shorter than data\.posterior\.bucket 90m"
        with pytest.raises(ConfigError, match=match):
            load("evaluation.refresh=30m", "data.posterior.bucket=90m")
        assert load("evaluation.refresh=90m", "data.posterior.bucket=90m").refresh_ms == 5_400_000

    def test_a_refresh_needs_a_test_period(self, load: Load) -> None:
        with pytest.raises(
            ConfigError, match=r"refresh 1h is impossible: .*last_click has no test period.*refresh: none"
        ):
            load("evaluation.refresh=1h", "data.split.by=last_click")

    def test_the_time_of_publication_is_an_attribute_and_needs_a_clock(self, load: Load) -> None:
        named = "data.items.published=born"
        assert load(named).data.items.attributes == ("born",)
        assert load(named, "data.items.attributes=[born, age]").data.items.attributes == ("born", "age")
        assert load(named).replaced(seed=2).data.items.attributes == ("born",)
        with pytest.raises(ConfigError, match=r"items\.published: born: a log without timestamps .* has no clock"):
            load(named, "data.events.time_unit=order", "data.split.by=last_click")

    def test_history_times_need_a_clock(self, load: Load) -> None:
        order = ("data.events.time_unit=order", "data.split.by=last_click")
        assert load("model.history_time=auto").history_time == "both"
        assert load("model.history_time=auto", *order).history_time == "none"
        with pytest.raises(
            ConfigError, match=r"history_time gap needs times, and data\.events\.time_unit: order has none"
        ):
            load("model.history_time=gap", *order)

    def test_routing_makes_interests_of_whole_histories_only(self, load: Load) -> None:
        routing = "model.interests={count: 2, extractor: routing}"
        load(routing)
        load("data.layout=user", "model.interests={count: 2, extractor: attention}")
        with pytest.raises(ConfigError, match=r"data\.layout user .* use extractor: attention, or layout: click"):
            load(routing, "data.layout=user")

    def test_one_interest_is_allowed_wherever_none_is(self, load: Load) -> None:
        one = load("model.interests={count: 1, extractor: routing}", "model.query=trigger", "data.layout=user")
        assert one.model.interest_count == load().model.interest_count == 1

    @pytest.mark.parametrize(("text", "bias"), [("auto", "auto"), ("0.07", 0.07), ("0", 0.0), ("-1", -1.0)])
    def test_cold_bias_is_chosen_or_a_number(self, load: Load, text: str, bias: str | float) -> None:
        config = load(f"index.cold_bias={text}")
        assert config.index.cold_bias == bias
        assert type(config.index.cold_bias) is type(bias)
        assert load(content=config.to_yaml()) == config

    def test_towers_alone_may_train_the_query_if_they_move_it(self, load: Load) -> None:
        load("model.loss={item: 0, towers_move_query: true}")
        towers_without_weight = "model.loss={item: 0, behaviour: 0, meta: 0, towers_move_query: true}"
        for overrides in (
            [towers_without_weight],
            ["model.loss={item: 0, towers_move_query: true}", "model.structure=base"],
        ):
            with pytest.raises(ConfigError, match=r"raise it, or let both towers of a gated model"):
                load(*overrides)

    def test_user_ids_need_no_users_file(self, load: Load) -> None:
        assert load("features.user=[{name: user_id, type: id}]").data.users is None

    @pytest.mark.parametrize("kind", ["category", "tags", "number"])
    def test_item_id_is_no_content_under_any_type(self, load: Load, kind: str) -> None:
        author_only = ["features.behaviour=[{name: author, type: id}]"]
        meta = f"features.meta=[{{name: copy, column: item_id, type: {kind}}}]"
        with pytest.raises(ConfigError, match=r"copy, which is the item id.*allow_mixed: true"):
            load(*author_only, meta)
        load(*author_only, meta, "features.allow_mixed=true")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "expected a mapping with `data` and `features`"),
            ("- 1", "found list"),
            ("data: [", "not valid YAML"),
            ("seed: 1\ndata: {}\nseed: 2\n", r"seed is listed twice.* line 3"),
        ],
    )
    def test_text_that_is_no_experiment_is_refused(self, load: Load, content: str, message: str) -> None:
        path_and_message = rf"experiment\.yaml: .*{message}"
        with pytest.raises(ConfigError, match=path_and_message):
            load(content=content or "# nothing\n")

    def test_missing_file_folder_and_other_bytes_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file"):
            load_config(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="Is a directory"):
            load_config(tmp_path)
        (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="not valid YAML"):
            load_config(tmp_path / "x.yaml")
