"""Tests the JSON Schema of the experiment file: it takes what the reader of the file takes, and marks mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.config.schema import experiment_schema
from recall.config.yaml_file import plain
from recall.core.errors import ConfigError
from tests.conftest import EXPERIMENT

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MISTAKES = ("data.evnets={}", "model.dimm=3", "training.epochs=many", "training.epochs=0", "evaluation.k=10",
            "evaluation.exclude_seen=perhaps", "data.history=true", "model.fusion=lfm", "model.fusion={knd: lmf}",
            "data.posterior.bucket=1 week", "data.split.by=user", "index.cold_bias=none", "features.meta.3.type=tags",
            "features.meta.1.separator=;", "data.refused=-1", "content.loss.tags=auto?", "seed=one")  # fmt: skip
ACCEPTED = ("model.fusion=lmf", "model.fusion={kind: lmf, rank: 2}", "data.refused=4", "data.refused={count: 4}",
            "data.posterior.half_lives=[90m, 3600000000]", "evaluation.refresh=none", "evaluation.refresh=null",
            "evaluation.refresh=2h", "model.student=mean", "model.student=null", "model.category_head=category",
            "data.events.weight=stars", "data.events.click={column: stars, at_least: 2}", "index.cold_bias=0.5",
            "data.events.weight=[{column: stars, weight: 2}]", "training.ema=null", "content.loss.tags=0.5",
            "data.posterior.bucket=1800000", "data.split={validation: 1d, test: 7d}",
            "model.content_term=auto", "model.temperature=2",
            "training.stages=[{name: all, loss: {refused: 0, triplet: 0.1}}]")  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Any:
    found = experiment_schema()
    jsonschema.Draft7Validator.check_schema(found)
    return jsonschema.Draft7Validator(found)


def experiment_with(override: str) -> Any:
    """Read the community's experiment with one setting changed, without validating it."""
    from recall.config.yaml_file import apply_override

    content = yaml.safe_load(EXPERIMENT)
    apply_override(content, override)
    return plain(content)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_fits_the_schema_and_names_it(path: Path, schema: Any) -> None:
    text = path.read_text()
    assert [error.message for error in schema.iter_errors(plain(yaml.safe_load(text)))] == []
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).is_file(), "editors look for the schema beside the file"


def test_the_schema_beside_the_examples_is_today_s() -> None:
    from recall.config.schema import schema_text

    written = (EXAMPLES / "experiment.schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "run `make schema`"


@pytest.mark.parametrize("override", ACCEPTED)
def test_what_the_reader_takes_fits_the_schema(override: str, schema: Any, tmp_path: Path) -> None:
    assert [error.message for error in schema.iter_errors(experiment_with(override))] == []
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    load_config(tmp_path / "experiment.yaml", [override])


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_does_not_fit_the_schema(override: str, schema: Any, tmp_path: Path) -> None:
    assert not schema.is_valid(experiment_with(override))
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "experiment.yaml", [override])


def test_a_resolved_experiment_fits_the_schema(schema: Any) -> None:
    """A run's own config.yaml has every default filled in, and durations as milliseconds."""
    content = yaml.safe_load(Config.model_validate(yaml.safe_load(EXPERIMENT)).to_yaml())
    assert [error.message for error in schema.iter_errors(content)] == []


def test_defaults_are_written_as_people_write_them(schema: Any) -> None:
    posterior = schema.schema["$defs"]["PosteriorConfig"]["properties"]
    assert posterior["bucket"]["default"] == "1h"
    assert posterior["half_lives"]["default"] == ["2h", "1d", "7d"]
