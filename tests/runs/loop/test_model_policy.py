"""What a model in the loop knows and serves, against the data that it was trained on; one small training for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recall.data.datasets.live_community import DAY_MS, LiveCommunity, Visits
from recall.evaluation.cold_bias import cold_weights
from recall.model.inference import CatalogueVectors, encode_users
from recall.runs.loop.arms import Arm
from recall.runs.loop.experiment import loop_experiment
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.learner import Learned, RunLearner
from recall.runs.loop.model_policy import ModelPolicy
from recall.runs.loop.play import play
from recall.training.published import load_model

HOUR_MS = 3_600_000
SMALL = ["training.batch_size=256", "model.dim=8", "model.hidden=[8]"]


@pytest.fixture(scope="module")
def knowledge(live: LiveCommunity) -> Knowledge:
    return Knowledge(live)


@pytest.fixture(scope="module")
def learned(live: LiveCommunity, knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    config = loop_experiment(Arm.parse("gated").settings, overrides=SMALL)
    learner = RunLearner(config, tmp_path_factory.mktemp("learner"), steps=6)
    return learner.learn(knowledge, now_ms=live.start_ms, until_ms=live.end_ms)


class Prepared:
    """Give the same model at each training, and count the trainings."""

    def __init__(self, learned: Learned) -> None:
        self.learned, self.moments = learned, list[int]()

    def learn(self, knowledge: Knowledge, *, now_ms: int, until_ms: int) -> Learned:
        self.moments.append(now_ms)
        return self.learned


def serving(live: LiveCommunity, learned: Learned, text: str = "gated") -> ModelPolicy:
    policy = ModelPolicy(Arm.parse(text), Knowledge(live), Prepared(learned))
    policy.begin_day(0, live.start_ms)
    return policy


def test_knowledge_is_what_was_prepared_of_the_same_log(
    live: LiveCommunity, knowledge: Knowledge, learned: Learned
) -> None:
    prepared = learned.prepared
    rows = np.arange(len(prepared.item_ids))
    own = knowledge.posteriors(prepared.posterior_history.prior, half_lives_ms=prepared.posterior_history.half_lives_ms)
    for moment_ms in (live.start_ms - 20 * HOUR_MS, live.start_ms, live.start_ms + 5 * HOUR_MS):
        moments = np.full(len(rows), moment_ms)
        found, expected = own.as_of(rows, moments), prepared.posterior_history.as_of(rows, moments)
        np.testing.assert_allclose(found.stacked(), expected.stacked(), rtol=1e-6)
        assert (found.exposures == knowledge.exposures(now_ms=moment_ms)[rows]).all()
        assert (found.clicks == knowledge.clicks(now_ms=moment_ms)[rows]).all()
        sources = knowledge.audiences().as_of(rows, moments, last=50)
        assert (sources == prepared.audience_history.as_of(rows, moments, last=50)).all()
    assert (sources >= 0).any()


def test_histories_are_the_last_clicks_as_prepared(live: LiveCommunity, knowledge: Knowledge, learned: Learned) -> None:
    history, age_ms = knowledge.histories(np.arange(150), now_ms=live.start_ms)
    for user in range(0, 150, 7):
        own = (live.log.user == user) & live.log.click
        clicked, times_ms = live.log.item[own][-30:], live.log.time_ms[own][-30:]
        assert history[user].tolist() == [*clicked.tolist(), *[-1] * (30 - len(clicked))]
        assert age_ms[user].tolist() == [*(live.start_ms - times_ms).tolist(), *[-1] * (30 - len(clicked))]


def test_items_of_the_next_days_are_served_as_new_ones(live: LiveCommunity, learned: Learned) -> None:
    there = live.published(live.start_ms)
    policy = serving(live, learned)
    policy.refresh(live.start_ms)
    served, bias = policy._vectors, learned.cold_bias
    assert len(served) == len(live.published_ms) > there == len(learned.prepared.item_ids)
    # Items of the training are what its published model makes of them.
    published = load_model(learned.prepared.directory.parent / "model", learned.prepared)
    rows = np.arange(there)
    history = learned.prepared.posterior_history
    posterior = history.as_of(rows, np.full(there, live.start_ms))
    sources = learned.prepared.audience_history.as_of(rows, np.full(there, live.start_ms), last=50)
    expected, _ = CatalogueVectors(published).at(posterior._replace(sources=sources))
    expected[:, -1] += bias * cold_weights(posterior.exposures)
    np.testing.assert_allclose(served[:there], expected, rtol=1e-4, atol=1e-5)
    # Later ones are made of their content, and have no id.
    codes = learned.model.item_table.variables["item_id"].numpy()[there:]
    assert set(codes.tolist()) == {1}
    assert len(np.unique(served[there:].round(4), axis=0)) == len(live.published_ms) - there


def test_scores_are_of_histories_up_to_the_moment(live: LiveCommunity, learned: Learned) -> None:
    policy = serving(live, learned)
    policy.refresh(live.start_ms)
    users = np.array([3, 50])
    visits = Visits(0, live.start_ms, users, np.zeros((2, 10), np.int64))
    history, age_ms = policy._knowledge.histories(users, now_ms=live.start_ms)
    ids = live.users["user_id"].to_numpy()[users]
    queries = encode_users(learned.model, ids, history, age_ms=age_ms)
    np.testing.assert_allclose(policy.scores(visits), queries @ policy._vectors.T, rtol=1e-5)


@pytest.mark.parametrize(("retrain", "days"), [("daily", [0, 1, 2]), ("weekly", [0]), ("never", [0])])
def test_an_arm_trains_as_often_as_it_says(
    live: LiveCommunity, learned: Learned, retrain: str, days: list[int]
) -> None:
    arm, knowledge, learner = Arm.parse(f"gated+retrain={retrain}"), Knowledge(live), Prepared(learned)
    log = play(live, arm, ModelPolicy(arm, knowledge, learner), knowledge)
    assert learner.moments == [live.start_ms + day * DAY_MS for day in days]
    new = live.published_ms[log.item] >= live.start_ms
    assert new.any()


def test_without_refresh_items_stay_as_they_were(live: LiveCommunity, learned: Learned) -> None:
    frozen, fresh = (serving(live, learned, f"gated+refresh={refresh}") for refresh in ("none", "hourly"))
    for policy in (frozen, fresh):
        policy.refresh(live.start_ms)
    np.testing.assert_allclose(frozen._vectors, fresh._vectors, rtol=1e-5, atol=1e-6)
    for policy in (frozen, fresh):
        policy.refresh(live.start_ms + 10 * HOUR_MS)
    assert not np.allclose(frozen._vectors, fresh._vectors)


def test_exploration_moves_new_items_most_and_the_same_in_all_arms(live: LiveCommunity, learned: Learned) -> None:
    now_ms = live.start_ms + 3 * HOUR_MS
    plain, one, other = (serving(live, learned, text) for text in ("gated", *["gated+exploration=0.5"] * 2))
    for policy in (plain, one, other):
        policy.refresh(now_ms)
    assert (one._vectors == other._vectors).all()
    moved = one._vectors - plain._vectors
    assert not moved[:, :-1].any()
    exposures = plain._knowledge.exposures(now_ms=now_ms)
    few, many = exposures == 0, exposures >= np.quantile(exposures, 0.9)
    assert moved[few, -1].std() > 2 * moved[many, -1].std() > 0
    one.refresh(now_ms + HOUR_MS)
    assert (one._vectors != other._vectors).any()


def test_a_training_leaves_one_run_behind(learned: Learned) -> None:
    folder = Path(learned.prepared.directory).parent.parent
    assert [path.name for path in folder.iterdir()] == ["training-1"]
