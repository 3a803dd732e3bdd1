"""Which tower may see what."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from recall.config.features import EmbeddingFeature, FeatureSchema, IdFeature

ID = {"name": "item_id", "type": "id"}
CONTENT: list[dict[str, Any]] = [
    {"name": "genre", "type": "category"},
    {"name": "tags", "type": "tags"},
    {"name": "length", "type": "number"},
    {"name": "text", "type": "embedding"},
]


def _schema(**sections: Any) -> FeatureSchema:
    return FeatureSchema.model_validate(sections)


def test_types_become_their_classes_and_item_features_start_with_behaviour() -> None:
    schema = _schema(behaviour=[ID], meta=CONTENT, user=[{"name": "user_id", "type": "id"}])
    assert [feature.name for feature in schema.item] == ["item_id", "genre", "tags", "length", "text"]
    assert isinstance(schema.behaviour[0], IdFeature)
    assert isinstance(schema.meta[3], EmbeddingFeature)


def test_source_is_the_column_where_one_is_given() -> None:
    schema = _schema(meta=[{"name": "genre", "type": "category"}, {"name": "g2", "column": "genre", "type": "tags"}])
    assert [feature.source for feature in schema.meta] == ["genre", "genre"]


@pytest.mark.parametrize("content", CONTENT, ids=lambda content: content["type"])
def test_content_in_behaviour_is_refused_unless_mixed(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=rf"behaviour: {content['name']} is content .*allow_mixed: true"):
        _schema(behaviour=[ID, content])
    assert _schema(behaviour=[ID, content], allow_mixed=True).behaviour[1].name == content["name"]


def test_id_in_meta_is_refused_unless_mixed() -> None:
    with pytest.raises(ValidationError, match=r"meta: item_id is an id; .*allow_mixed: true"):
        _schema(meta=[ID])
    assert len(_schema(meta=[ID], allow_mixed=True).meta) == 1


@pytest.mark.parametrize("kind", ["category", "tags", "number"])
def test_column_of_an_id_is_no_content_under_another_type(kind: str) -> None:
    with pytest.raises(ValidationError, match="meta: copy is an id"):
        _schema(behaviour=[ID], meta=[{"name": "copy", "column": "item_id", "type": kind}])


def test_names_are_used_once_per_table() -> None:
    with pytest.raises(ValidationError, match="behaviour and meta: item_id is listed twice"):
        _schema(behaviour=[ID], meta=[{"name": "item_id", "type": "number"}])
    with pytest.raises(ValidationError, match="user: age is listed twice"):
        _schema(behaviour=[ID], user=[{"name": "age", "type": "number"}] * 2)
    assert _schema(behaviour=[ID], meta=CONTENT, user=[{"name": "genre", "type": "category"}])


def test_names_of_clusters_count_as_names() -> None:
    clustered = {"name": "text", "type": "embedding", "clusters": [4]}
    taken = {"name": "text_cluster_0", "type": "category"}
    with pytest.raises(ValidationError, match="text_cluster_0 is listed twice"):
        _schema(meta=[clustered, taken])
    assert _schema(meta=[{**clustered, "use": "vector"}, taken])


def test_no_item_features_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="no item features"):
        _schema(user=[ID])


@pytest.mark.parametrize(
    ("use", "clusters", "vector", "names"),
    [
        ("both", [4, 8], True, ["text_cluster_0", "text_cluster_1"]),
        ("both", [], True, []),
        ("vector", [4, 8], True, []),
        ("clusters", [4], False, ["text_cluster_0"]),
    ],
)
def test_use_decides_what_the_tower_sees(use: str, clusters: list[int], vector: bool, names: list[str]) -> None:
    feature = EmbeddingFeature.model_validate({"name": "text", "type": "embedding", "use": use, "clusters": clusters})
    assert feature.uses_vector is vector
    assert feature.cluster_names == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": [32, 100]}, "100 has to be a multiple of 32"),
        ({"clusters": [8, 4]}, "4 has to be a multiple of 8"),
        ({"use": "clusters"}, "needs `clusters`"),
        ({"clusters": [0]}, "greater than 0"),
        ({"min_count": 2}, "Extra inputs"),
        ({"name": "two words"}, "pattern"),
    ],
)
def test_embedding_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EmbeddingFeature.model_validate({"name": "text", "type": "embedding", **settings})


@pytest.mark.parametrize("value", [True, False])
def test_truth_is_no_number(value: bool) -> None:
    with pytest.raises(ValidationError, match="min_count cannot be"):
        IdFeature.model_validate({**ID, "min_count": value})
