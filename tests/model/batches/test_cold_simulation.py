"""Items as they would look if they were new: whose id goes, and what its author keeps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.data.prepared import PreparedData
from recall.model.batches.cold_simulation import ColdSimulator, Shown, own_shares
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
