"""`model.fusion` and `features.meta[].modality`: what they mean, and how a mistake in them is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.core.errors import ConfigError

EXPERIMENT: dict[str, Any] = {
    "data": {"events": {"path": "log.csv"}, "items": {"path": "items.csv"}},
    "features": {
        "behaviour": [{"name": "item_id", "type": "id"}],
        "meta": [
            {"name": "genre", "type": "category"},
            {"name": "text", "type": "embedding", "clusters": [4, 8]},
            {"name": "tags", "type": "tags"},
            {"name": "length", "type": "number"},
        ],
    },
}
Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_with(*overrides: str) -> Config:
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(EXPERIMENT))
        return load_config(path, overrides)

    return load_with


@pytest.mark.parametrize("kind", ["concat", "weighted_sum", "lmf", "cross_attention", "transformer"])
def test_a_kind_alone_is_short_for_a_section(load: Load, kind: str) -> None:
    short, section = load(f"model.fusion={kind}"), load(f"model.fusion={{kind: {kind}}}")
    assert short == section
    assert short.model.fusion.kind == kind
    assert short.replaced(model={"structure": "base"}).model.fusion == short.model.fusion


def test_features_are_concatenated_unless_something_else_is_asked_for(load: Load) -> None:
    assert load() == load("model.fusion=concat")


def test_modalities_are_dropped_a_tenth_of_the_time_unless_the_experiment_says_otherwise(load: Load) -> None:
    assert load("model.fusion=lmf").model.fusion.dropout_rate == 0.1
    assert load("model.fusion={kind: lmf, modality_dropout: 0}").model.fusion.dropout_rate == 0


def test_embeddings_and_tags_are_modalities_and_the_rest_is_attributes(load: Load) -> None:
    modalities = {"genre": "attributes", "text": "text", "tags": "tags", "length": "attributes"}
    assert load().features.modalities == modalities
    named = load("features.meta.3.modality=size", "features.meta.2.modality=text")
    assert named.features.modalities == modalities | {"length": "size", "tags": "text"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.fusion=lmx"], r"model\.fusion\.kind: .*'lmf'.* found 'lmx'"),
        (["model.fusion={kind: sum}"], r"model\.fusion\.kind: .*'weighted_sum'.* found 'sum'"),
        (["model.fusion=3"], r"model\.fusion\.kind: .*found 3"),
        (["model.fusion={kind: lmf, rank: 0}"], r"model\.fusion\.rank: .*greater than 0, found 0"),
        (["model.fusion={kind: lmf, ranks: 2}"], r"model\.fusion\.ranks: unknown key"),
        (["model.fusion={kind: lmf, modality_dropout: 1}"], r"model\.fusion\.modality_dropout: .*found 1"),
        (["model.fusion={modality_dropout: 0.1}"], r"model\.fusion: .*kind: concat knows none .* use another kind"),
        (["model.fusion={kind: transformer, heads: 3}"], r"dim 64 has to be a multiple of fusion\.heads 3"),
        (["model.fusion=lmf", "features.meta=[{name: tags, type: tags}]"], r"has tags only; .* use fusion: concat"),
        (["model={fusion: lmf, structure: behaviour_only}", "features.meta=[]"], r"features\.meta, which has none"),
        (["features.meta.0.modality=two words"], r"features\.meta\[0\]\.modality: .*found 'two words'"),
        (["features.meta.0.modality=''"], r"features\.meta\[0\]\.modality: .*found ''"),
        ([f"features.meta.0.modality={'x' * 33}"], r"features\.meta\[0\]\.modality: .*at most 32"),
        (["features.behaviour.0.modality=text"], r"item_id has modality text, .* or move the feature to `meta`"),
        (["model.fusion=lmf", "features.meta.2.name=attributes"], r"attributes is a modality by itself"),
    ],
)
def test_a_mistake_is_named_with_what_was_found(load: Load, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        load(*overrides)
    assert "\n" not in str(caught.value), "one mistake, one line"


def test_heads_matter_to_kinds_that_attend_and_names_to_kinds_that_weigh(load: Load) -> None:
    load("model.fusion={kind: lmf, heads: 3}")
    load("features.meta.2.name=attributes")
    load("model.fusion=lmf", "features.meta.2.name=attributes", "features.meta.2.modality=attributes")
