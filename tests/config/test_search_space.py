"""Tests the search space of tuning: the marks of the settings, and what a user says beside them."""

from __future__ import annotations

from typing import Any

import pytest

from recall.config.search_space import Dimension, search_space, setting, with_settings
from recall.core.errors import ConfigError
from tests.conftest import Experiment


def spaces(*overrides: str, experiment: Experiment, given: dict[str, Any] | None = None) -> dict[str, Dimension]:
    return {dimension.key: dimension for dimension in search_space(experiment(*overrides), given)}


def test_the_configured_value_is_among_the_values_to_try(experiment: Experiment) -> None:
    found = spaces("model.dim=24", "training.learning_rate=0.03", "model.dropout=0.7", experiment=experiment)
    assert found["model.dim"].text == "16, 24, 32, 64, 128"
    assert found["training.learning_rate"].text == "0.0005 to 0.03 (log)"
    assert found["model.dropout"].text == "0.0 to 0.7"
    for dimension in found.values():
        config = experiment("model.dim=24", "training.learning_rate=0.03", "model.dropout=0.7")
        assert with_settings(config, {dimension.key: dimension.configured}) == config


def test_every_suggested_value_can_be_set(experiment: Experiment) -> None:
    config, every = experiment(), {"model.temperature": True, "model.cold_simulation.unseen": True}
    for dimension in search_space(config, every):
        values = getattr(dimension.space, "values", None) or (dimension.space.low, dimension.space.high)  # type: ignore[union-attr]
        for value in values:
            with_settings(config, {dimension.key: value})


def test_a_setting_that_does_nothing_is_not_tuned(experiment: Experiment) -> None:
    gated = spaces(experiment=experiment)
    assert {"model.gate", "model.loss.meta", "data.posterior.half_lives"} <= gated.keys()
    single = spaces("model.structure=single", "data.split.by=last_click", experiment=experiment)
    assert not {"model.gate", "model.loss.meta", "data.posterior.half_lives"} & single.keys()


def test_what_validation_misjudges_is_tuned_only_when_asked_for(experiment: Experiment) -> None:
    assert not any("cold_simulation" in key for key in spaces(experiment=experiment))
    given = {"defaults": False, "model.cold_simulation.unseen": True}
    assert spaces(experiment=experiment, given=given)["model.cold_simulation.unseen"].text == "0.0 to 0.4"


def test_a_value_that_the_model_cannot_have_is_left_out(experiment: Experiment) -> None:
    found = spaces(
        "model.history_encoder=transformer", "model.transformer.heads=32", "model.dim=32", experiment=experiment
    )
    assert found["model.dim"].text == "32, 64, 128"


def test_a_users_space_adds_replaces_and_removes(experiment: Experiment) -> None:
    given = {
        "model.dim": [32, 16], "model.gate": False, "model.hidden": [[32], [32, 16]],
        "model.dropout": {"low": 0.1, "high": 0.3}, "model.temperature": True,
    }  # fmt: skip
    found = spaces(experiment=experiment, given=given)
    assert found["model.dim"].text == "8, 16, 32"
    assert found["model.hidden"].text == "[32], [32, 16], [16]"
    assert found["model.dropout"].text == "0.1 to 0.3"
    assert found["model.temperature"].configured == 1.0  # what `null` means with similarity: dot
    assert "model.gate" not in found
    assert "training.learning_rate" in found
    assert spaces(experiment=experiment, given={"defaults": False, **given}).keys() == given.keys() - {"model.gate"}


def test_durations_stay_as_they_are_written(experiment: Experiment) -> None:
    half_lives = spaces(experiment=experiment)["data.posterior.half_lives"]
    assert half_lives.configured == ["2h", "1d", "7d"]
    assert half_lives.text == "[2h, 1d, 7d], [6h, 3d], [30m, 4h, 1d, 7d]"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model.dimm": True}, "model.dimm: the experiment has no such setting"),
        ({"dim": [1]}, "dim: the experiment has no such setting"),
        ({"model.loss.item.deeper": [1]}, "model.loss.item.deeper: the experiment has no such setting"),
        ({"model.hidden": True}, "model.hidden: recall suggests no values"),
        ({"model.dim": [0, 8]}, "model.dim: input should be greater than 0, found 0"),
        ({"model.dropout": {"low": 0.5, "high": 0.1}}, "model.dropout: expected a list of values"),
        ({"model.dropout": {"low": 0, "high": 0.1, "log": True}}, "above 0"),
        ({"model.dropout": {"low": 0.1, "high": 1.5}}, "model.dropout: input should be less than 1"),
        ({"model.dim": 8}, "model.dim: expected a list of values"),
        (
            {"model.gate": {"low": 0.1, "high": 1.0}},
            "model.gate: is 'residual' in the experiment, which no range holds",
        ),
        ({"defaults": "no"}, "defaults: expected true or false"),
        ({"defaults": False}, "no setting is left to tune"),
        ({"defaults": False, "model.dim": [8]}, "no setting is left to tune"),
    ],
)
def test_a_wrong_entry_is_named(given: dict[str, Any], message: str, experiment: Experiment) -> None:
    with pytest.raises(ConfigError) as raised:
        search_space(experiment(), given)
    assert message in str(raised.value)


def test_a_setting_is_read_as_yaml_has_it(experiment: Experiment) -> None:
    config = with_settings(experiment(), {"data.posterior.half_lives": ["6h"], "model.loss.meta": 0.5})
    assert setting(config, "data.posterior.half_lives") == [6 * 3_600_000]
    assert setting(config, "model.loss.meta") == 0.5
    assert config.model.loss.behaviour == experiment().model.loss.behaviour
