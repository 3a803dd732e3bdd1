"""Arms are read from short texts; whatever is wrong with one is said in a line."""

from __future__ import annotations

import pytest

from recall.core.errors import ConfigError, RecallError
from recall.runs.loop.arms import Arm, parse_arms
from recall.runs.loop.experiment import loop_experiment


def test_an_arm_has_the_settings_that_follow_its_kind() -> None:
    arm = Arm.parse("gated+retrain=weekly+refresh=none+explore=0.1+index.cold_bias=0+model.gate=sum")
    assert (arm.kind, arm.days_between_trainings, arm.refresh, arm.explore) == ("gated", 7, "none", 0.1)
    config = loop_experiment(arm.settings)
    assert (config.model.structure, config.model.gate, config.index.cold_bias) == ("gated", "sum", 0)
    assert config.data.posterior.audience == 50
    assert loop_experiment(Arm.parse("gated_two").settings).data.posterior.audience == 0


def test_settings_of_all_arms_come_before_the_settings_of_one() -> None:
    arm = Arm.parse("base+training.ema=0.9")
    config = loop_experiment(arm.settings, overrides=["training.ema=0.5", "model.dim=16"])
    assert (config.training.ema, config.model.dim, config.model.structure) == (0.9, 16, "base")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names none"),
        ("gate", "found 'gate', expected one of gated"),
        ("gated,single,gated", "gated is there twice"),
        ("gated+explore", "'explore' is no setting"),
        ("gated+explore=2", "explore is 2, expected a share from 0 to 1"),
        ("gated+retrain=hourly", "retrain is hourly, expected daily, weekly, never"),
        ("gated+budget=20/100", "add \\+min_cold_share"),
        ("gated+min_cold_share=0.1+budget=many", "budget is many, expected exposures, e.g. 20/100"),
        ("gated+min_cold_share=0.1+budget=20/10", "budget: expected rising"),
        ("gated+exploration=-1", "exploration is -1, expected a weight"),
        ("random+exploration=1", "random has no setting exploration"),
        ("random+retrain=daily", "random has no setting retrain"),
        ("random+model.dim=8", "model.dim is a setting of a model, and random trains none"),
        ("gated+colour=red", "gated has no setting colour; expected retrain, from, refresh, explore"),
        ("gated+model.dim=[", "'\\[' is not valid YAML"),
    ],
)
def test_what_is_wrong_with_arms_is_said(text: str, message: str) -> None:
    with pytest.raises(RecallError, match=message):
        parse_arms(text)


def test_a_wrong_setting_of_the_experiment_is_said() -> None:
    with pytest.raises(ConfigError, match=r"model\.dim"):
        loop_experiment({"model.dim": -1})
    with pytest.raises(ConfigError, match="nonsense"):
        loop_experiment({"nonsense.key": 1})
