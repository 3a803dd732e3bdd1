"""Models that fuse modalities: they learn, come back from disk, are served, and their runs tell the weights."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from rich.console import Console

from recall.config.experiment import Config
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Batch, training_dataset
from recall.model.fusion import FUSIONS
from recall.model.inference import encode_items, modality_weights
from recall.model.recall_model import RecallModel
from recall.model.vector_table import ItemVectorTable
from recall.runs.run import Run
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_ITEM_CODES

# Nothing random is left: the same batch gives the same loss.
PLAIN = ("model.dropout=0", "model.cold_simulation.enabled=false", "model.similarity=cosine")
MODALITIES = ["tags", "attributes", "text"]


def ready(config: Config, prepared: PreparedData) -> RecallModel:
    tf.keras.utils.set_random_seed(11)
    model = RecallModel(config, prepared)
    model.prepare_optimizers()
    return model


def first_batch(model: RecallModel, prepared: PreparedData, *, size: int) -> Batch:
    history = model.config.data.history
    return next(
        iter(
            training_dataset(prepared, model.user_rows, batch_size=size, history=history, shuffle_buffer=10_000, seed=1)
        )
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("weighted_sum", ("model.structure=meta_only",)),
        ("lmf", ("model.gate=concat",)),
        ("cross_attention", ("model.structure=base",)),
        ("transformer", ("model.structure=single", "model.query=trigger")),
    ],
)
def test_every_kind_learns_a_small_batch_with_all_its_weights(
    kind: str, settings: tuple[str, ...], experiment: Experiment, prepared: PreparedData
) -> None:
    fusion = f"model.fusion={{kind: {kind}, modality_dropout: 0}}"
    model = ready(experiment(*PLAIN, *settings, fusion, "training.learning_rate=0.02"), prepared)
    batch = first_batch(model, prepared, size=24)
    before = [variable.numpy() for variable in model.trainable_variables]
    losses = [float(model.train_step(batch)["loss"]) for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0], losses
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all(), variable.name
        # All items of this community have a category, so that none of them has no content.
        if "absent" not in variable.name:
            assert (variable.numpy() != start).any(), f"{variable.name} is never trained"


def test_the_kinds_of_the_models_above_are_all_kinds() -> None:
    assert set(FUSIONS) == {"weighted_sum", "lmf", "cross_attention", "transformer"}


def test_items_in_histories_are_fused_as_candidates_are(experiment: Experiment, prepared_by_user: PreparedData) -> None:
    model = ready(experiment(*PLAIN, "model.fusion=lmf", "data.layout=user"), prepared_by_user)
    batch = first_batch(model, prepared_by_user, size=5)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    variables = model.items.content.fusion.gate_score.trainable_variables
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(loss, variables))


# A whole run


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*WITH_ITEM_CODES)  # its content is fused by a transformer


def test_a_loaded_model_gives_the_vectors_and_weights_of_the_run(
    finished: Path, prepared_data: PreparedData, model: RecallModel
) -> None:
    table = ItemVectorTable.read(finished / "vectors")
    np.testing.assert_allclose(
        encode_items(model, prepared_data.posterior("serving").stacked())[0], table.vectors, atol=1e-5
    )
    weights = modality_weights(model)
    assert list(weights) == list(table.modality_weights) == MODALITIES
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, table.modality_weights[name], atol=1e-6)


def test_weights_in_the_table_are_those_of_what_each_item_has(finished: Path, settings: Config) -> None:
    table = pq.read_table(finished / "vectors").to_pylist()
    items = {row["item_id"]: row for row in pq.read_table(settings.data.items.path).to_pylist()}
    has_text = [items[row["item_id"]]["text"] is not None for row in table]
    assert [row["modality_weights"]["text"] > 0 for row in table] == has_text
    assert 0 < sum(has_text) < len(table)
    np.testing.assert_allclose([sum(row["modality_weights"].values()) for row in table], 1, rtol=1e-5)


def test_a_saved_item_side_fuses_as_the_model_does(
    finished: Path, prepared_data: PreparedData, model: RecallModel
) -> None:
    posterior = prepared_data.posterior("serving").stacked()
    features = model.item_table.gather(tf.range(len(posterior)))
    item_side = tf.saved_model.load(str(finished / "model" / "item"))
    served = item_side.vectors(features, tf.constant(posterior))
    np.testing.assert_allclose(served["vector"], encode_items(model, posterior)[0], atol=1e-5)


def test_the_report_has_the_mean_weights_over_all_and_over_cold_items(finished: Path, model: RecallModel) -> None:
    page = (finished / "report.html").read_text()
    assert "Weights of the modalities in the content of an item" in page
    for name, weight in modality_weights(model).items():
        row = page[page.index(f'<th scope="row">{name}</th>') :].split("</tr>")[0]
        assert f"<td>{weight.mean():.4f}</td>" in row
        assert f"<td>{(weight > 0).mean():.4f}</td>" in row


def test_other_modalities_redo_the_model_but_not_the_data(finished: Path, tmp_path: Path) -> None:
    copy, stream = Path(shutil.copytree(finished, tmp_path / "run")), io.StringIO()
    regrouped = Run.open(copy, ["features.meta.1.modality=kind"], console=Console(file=stream, width=200))
    regrouped.prepare()
    assert "prepare: done before" in stream.getvalue()
    with pytest.raises(ArtifactError, match="was trained with other data or settings"):
        regrouped.vectors()
