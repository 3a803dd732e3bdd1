"""Items as they would look if they were new: whose id goes, and what its author keeps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.core.errors import ConfigError
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.data.prepared import PreparedData
from recall.model.batches.cold_simulation import YOUNG, ColdSimulator, Shown, moments_of_clicks, own_shares
from recall.model.batches.dataset import training_dataset
from recall.model.batches.targets import Targets, candidates_of
from recall.model.recall_model import RecallModel
from tests.conftest import Experiment


def test_an_items_share_is_its_clicks_among_those_of_its_author() -> None:
    authors = np.array([2, 3, 2, 0, 1, 1, 4], np.int32)  # 0 is missing, 1 out of vocabulary
    clicks = np.array([3, 5, 1, 7, 2, 2, 0])
    assert own_shares(authors, clicks).tolist() == [0.75, 1, 0.25, 0, 0, 0, 0]


class Hidden:
    """What a simulator does to all items at once, many times."""

    def __init__(self, model: RecallModel, times: int = 400) -> None:
        assert isinstance(model.cold_simulator, ColdSimulator)
        rows = tf.range(model.item_table.size)
        features = model.item_table.gather(rows)
        content, posterior = model.items.content_of(features), tf.ones([len(rows), model.items.posterior_width])
        self.shown: list[Shown] = [
            model.cold_simulator.candidates(content, features, posterior, rows) for _ in range(times)
        ]
        self.before = {name: values.numpy() for name, values in features.items()}

    def share(self, name: str) -> np.ndarray:
        """How often each item showed no known value: float [items]."""
        return np.mean([shown.features[name].numpy() == OUT_OF_VOCABULARY for shown in self.shown], axis=0)


@pytest.fixture
def model(request: pytest.FixtureRequest, prepared: PreparedData, experiment: Experiment) -> RecallModel:
    return RecallModel(experiment(f"model.cold_simulation={request.param}"), prepared)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["{max_probability: 0, unseen: 1}"], indirect=True)
def test_an_author_is_hidden_as_often_as_it_learned_from_the_item_alone(
    model: RecallModel, prepared: PreparedData
) -> None:
    clicks, authors = prepared.sampling_counts, prepared.items["author_id"].to_numpy()
    expected = [
        clicks[row] / max(clicks[authors == authors[row]].sum(), 1) if authors[row] > OUT_OF_VOCABULARY else 0.0
        for row in range(len(authors))
    ]
    assert np.ptp(expected) > 0.5
    hidden = Hidden(model)
    was_known = hidden.before["author_id"] != OUT_OF_VOCABULARY
    # Standard deviation of a share of 400: at most .025.
    np.testing.assert_allclose(hidden.share("author_id")[was_known], np.array(expected)[was_known], atol=0.12)
    for name in ("category", "tags", "text"):  # content is what is left of a new item
        for shown in hidden.shown[:3]:
            np.testing.assert_array_equal(shown.features[name], hidden.before[name])


@pytest.mark.parametrize(
    "model",
    ["{max_probability: 0, unseen: 0}", "{max_probability: 0, unseen: 1, own_share: false}"],
    indirect=True,
)
def test_an_author_stays_where_the_id_does_or_where_it_is_to(model: RecallModel) -> None:
    hidden = Hidden(model, times=20)
    for shown in hidden.shown:
        np.testing.assert_array_equal(shown.features["author_id"], hidden.before["author_id"])


@pytest.mark.parametrize("own_share", [True, False])
def test_an_only_childs_vector_owes_nothing_to_its_author(
    own_share: bool, prepared: PreparedData, experiment: Experiment
) -> None:
    settings = f"model.cold_simulation={{max_probability: 0, unseen: 1, own_share: {own_share}}}"
    model = RecallModel(experiment(settings), prepared)
    shares = own_shares(prepared.items["author_id"].to_numpy(), prepared.sampling_counts)
    rows = np.flatnonzero(shares == 1).astype(np.int32)
    assert rows.size, "an author of the community has one item that was clicked"
    features = model.item_table.gather(rows)
    content, posterior = model.items.content_of(features), tf.ones([len(rows), model.items.posterior_width])

    def vectors() -> np.ndarray:
        assert model.cold_simulator is not None
        shown = model.cold_simulator.candidates(content, features, posterior, rows)
        return model.items.vectors(*shown).vector.numpy()

    before = vectors()
    table = model.items.context.tables["author_id"].weight
    known = np.arange(OUT_OF_VOCABULARY + 1, table.shape[0])
    table.scatter_add(tf.IndexedSlices(np.random.default_rng(4).normal(size=(len(known), table.shape[1])), known))
    assert (vectors() == before).all() == own_share


# Younger than they were

NEVER = np.iinfo(np.int64).max


def test_an_item_has_its_first_clicks_at_the_moment_at_which_they_are_seen(prepared: PreparedData) -> None:
    history, items = prepared.posterior_history, len(prepared.item_ids)
    found = moments_of_clicks(history, YOUNG, items=items)
    assert 0 < (found == NEVER).mean() < 0.8
    rows, columns = np.nonzero(found < NEVER)
    at, numbers = found[rows, columns], np.array(YOUNG)[columns]
    assert (history.as_of(rows, at).clicks >= numbers).all()
    assert (history.as_of(rows, at - 1).clicks < numbers).all()
    rows, columns = np.nonzero(found == NEVER)
    end = np.full(len(rows), prepared.manifest["last_time_ms"] + 10**9)
    assert (history.as_of(rows, end).clicks < np.array(YOUNG)[columns]).all()


@pytest.mark.parametrize("model", ["{max_probability: 0, unseen: 0, younger: 1}"], indirect=True)
def test_clicked_items_are_shown_as_they_were_known_then_and_without_id(
    model: RecallModel, prepared: PreparedData
) -> None:
    simulator, history = model.cold_simulator, prepared.posterior_history
    assert simulator is not None
    batch = next(
        iter(training_dataset(prepared, model.user_rows, batch_size=200, history=8, shuffle_buffer=500, seed=1))
    )
    targets = Targets.of(batch)
    younger = simulator.younger(targets.items, targets.times_ms)
    moments = moments_of_clicks(history, YOUNG, items=len(prepared.item_ids))[targets.items]
    is_younger = younger.is_younger.numpy()
    assert 0.2 < is_younger.mean() < 1
    one_of = (moments == younger.times_ms.numpy()[:, np.newaxis]).any(axis=1)
    assert one_of[is_younger].all()
    assert (younger.times_ms.numpy()[is_younger] < targets.times_ms.numpy()[is_younger]).all()
    np.testing.assert_array_equal(younger.times_ms.numpy()[~is_younger], targets.times_ms.numpy()[~is_younger])
    loss = model.config.model.loss
    candidates, _ = candidates_of(targets, [], sampler=model.sampler, loss=loss, shown_ms=younger.times_ms)
    expected = history.as_of(targets.items.numpy(), younger.times_ms.numpy()).stacked()
    np.testing.assert_allclose(candidates.posterior[:200], expected, rtol=1e-4, atol=1e-4)
    features = model.item_table.gather(candidates.rows)
    content = model.items.content_of(features)
    shown = simulator.candidates(content, features, candidates.posterior, candidates.rows, younger.is_younger)
    was_known = content.known.numpy()
    assert not shown.content.known.numpy()[:200][is_younger].any()
    np.testing.assert_array_equal(shown.content.known.numpy()[200:], was_known[200:])


def test_being_younger_needs_moments(experiment: Experiment) -> None:
    for override in ("data.split={by: last_click}", "model.loss.softmax=full"):
        with pytest.raises(ConfigError, match=r"cold_simulation\.younger: 0\.2 .*use younger: 0"):
            experiment("model.cold_simulation.younger=0.2", override)
