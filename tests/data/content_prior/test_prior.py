"""Content priors against plain counting and fitting: nothing of the future, nothing of the item itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from scipy.optimize import brentq, minimize

from recall.config.experiment import Config
from recall.data.content_prior.first_exposures import FirstExposures
from recall.data.content_prior.linear_ctr import ContentCtr
from recall.data.content_prior.prior import ContentPrior, fit_content_prior
from recall.data.event_counts import count_buckets
from recall.data.posterior import PosteriorHistory, Prior

HOUR = 3_600_000
DAY = 24 * HOUR
PRIOR = Prior(ctr=0.25, strength=20.0)
MOMENTS = {"validation": 8 * DAY, "test": 9 * DAY, "serving": 10 * DAY}
CTR_OF_TOPIC = np.array([0.05, 0.2, 0.4, 0.7])
ITEMS = 240


class Log(NamedTuple):
    """Events, and the catalogue that they are about."""

    item: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    click: npt.NDArray[np.bool_]
    topic: npt.NDArray[np.int64]

    def history(self, *, bucket: int = HOUR, delay: int = HOUR) -> PosteriorHistory:
        counts = count_buckets(self.item, self.time, self.click, bucket_ms=bucket)
        return PosteriorHistory.from_counts(counts, bucket_ms=bucket, delay_ms=delay, prior=PRIOR)

    def table(self) -> pa.Table:
        topics = [f"t{topic}" for topic in self.topic]
        return pa.table({"item_id": IDS[: len(topics)], "author": AUTHORS[: len(topics)], "topic": topics})

    def fit(self, *settings: str, bucket: int = HOUR, delay: int = HOUR) -> ContentPrior:
        history = self.history(bucket=bucket, delay=delay)
        ids = pa.array(IDS[: len(self.topic)])
        return fit_content_prior(config(*settings), ids, self.table(), history=history, moments_ms=MOMENTS)


IDS = [f"i{row}" for row in range(ITEMS)]
AUTHORS = [f"a{row % 20}" for row in range(ITEMS)]


def config(*settings: str) -> Config:
    data = {
        "events": {"path": "e.parquet", "user": "u", "item": "item_id", "time": "t", "time_unit": "ms"},
        "items": {"path": "i.parquet", "id": "item_id"},
        "posterior": {"content_prior": {"enabled": True, **dict.fromkeys(settings, True)}},
    }
    behaviour = [{"name": "item_id", "type": "id"}, {"name": "author", "type": "id"}]
    meta = [{"name": "topic", "type": "category"}]
    return Config.model_validate({"data": data, "features": {"behaviour": behaviour, "meta": meta}})


@pytest.fixture
def log() -> Log:
    rng = np.random.default_rng(5)
    topic, item = rng.integers(0, 4, ITEMS), rng.integers(0, ITEMS, 9_000)
    time = np.sort(rng.integers(0, 10 * DAY, 9_000))
    return Log(item, time, rng.random(9_000) < CTR_OF_TOPIC[topic[item]], topic)


def priors(found: ContentPrior, times_ms: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """[moments, items]"""
    assert found.items is not None
    return np.stack([found.items.of(np.arange(ITEMS), np.full(ITEMS, time)) for time in np.asarray(times_ms)])


def test_first_exposures_are_counted_in_order_of_time(log: Log) -> None:
    first = FirstExposures(log.history(bucket=1, delay=0), limit=7, items=ITEMS + 1)
    for moment in (DAY, 3 * DAY, 11 * DAY):
        exposures, clicks = first.known_at(moment)
        for row in range(ITEMS + 1):
            own = np.flatnonzero((log.item == row) & (log.time < moment))[:7]
            assert exposures[row] == len(own)
            assert clicks[row] == pytest.approx(log.click[own].sum())


def test_the_bucket_that_reaches_the_limit_counts_pro_rata() -> None:
    # Two exposures (one click) in the first hour, then eight (four clicks): the first four take two of the eight.
    time = np.array([0, 1] + [HOUR] * 8)
    click = np.array([True, False] + [True] * 4 + [False] * 4)
    counts = count_buckets(np.zeros(10, np.int64), time, click, bucket_ms=HOUR)
    history = PosteriorHistory.from_counts(counts, bucket_ms=HOUR, delay_ms=0, prior=PRIOR)
    exposures, clicks = FirstExposures(history, limit=4, items=1).known_at(DAY)
    assert (exposures.item(), clicks.item()) == (4.0, 2.0)


@pytest.mark.slow
def test_later_events_change_no_prior_that_was_used_before_them(log: Log) -> None:
    now = 6 * DAY + 123
    late = log.time >= now
    extra = np.random.default_rng(1).integers(0, ITEMS, 3_000)
    changed = log._replace(
        item=np.r_[log.item, extra],
        time=np.r_[log.time, np.full(3_000, now)],
        click=np.r_[np.where(late, ~log.click, log.click), extra % 2 == 0],
    )
    used = np.arange(0, now + 1, 7 * HOUR)
    assert np.array_equal(priors(log.fit(), used), priors(changed.fit(), used))
    after = [MOMENTS["test"]]
    assert not np.array_equal(priors(log.fit(), after), priors(changed.fit(), after))


@pytest.mark.slow
def test_an_items_own_clicks_are_not_in_its_own_prior(log: Log) -> None:
    moments = np.arange(0, 10 * DAY, 5 * HOUR)
    before = priors(log.fit("ids"), moments)
    for row in (0, 17, 101):
        changed = log._replace(click=np.where(log.item == row, ~log.click, log.click))
        after = priors(changed.fit("ids"), moments)
        assert np.array_equal(before[:, row], after[:, row])
        assert not np.array_equal(before, after)


def test_priors_equal_those_of_a_plain_implementation(log: Log) -> None:
    found = log.fit(bucket=1, delay=0)
    fold = (pd.util.hash_array(np.array(IDS, dtype=object), categorize=False) // np.uint64(2)) % np.uint64(4)
    exposures, clicks = np.zeros(ITEMS), np.zeros(ITEMS)
    for item, time, click in zip(log.item, log.time, log.click, strict=True):
        if time < MOMENTS["validation"] and exposures[item] < 100:
            exposures[item] += 1
            clicks[item] += click
    shown = exposures > 0
    one_hot = np.eye(4)[log.topic]

    def fitted(chosen: npt.NDArray[np.bool_], penalty: float) -> npt.NDArray[np.float64]:
        design, own, clicked = one_hot[chosen], exposures[chosen], clicks[chosen]
        share = 21 / (20 + own)

        def loss(parameters: npt.NDArray[np.float64]) -> float:
            odds = design @ parameters[:4] + parameters[4]
            likelihood = share * (own * np.logaddexp(0, odds) - clicked * odds)
            return float(likelihood.sum() + parameters[:4] @ parameters[:4] * penalty / 2)

        weights = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-7}).x[:4]

        def excess(intercept: float) -> float:
            return float((own / (1 + np.exp(-design @ weights - intercept))).sum() - clicked.sum())

        return np.r_[weights, brentq(excess, -9, 9)]

    def log_loss(parameters: npt.NDArray[np.float64], part: npt.NDArray[np.bool_]) -> float:
        ctr = 1 / (1 + np.exp(-one_hot[part] @ parameters[:4] - parameters[4]))
        passed = exposures[part] - clicks[part]
        return float(-(clicks[part] @ np.log(ctr) + passed @ np.log(1 - ctr)))

    expected = np.zeros(ITEMS)
    for own, judge in ((0, 1), (1, 0), (2, 3), (3, 2)):
        others = shown & (fold != own) & (fold != judge)
        losses = {
            penalty: log_loss(fitted(others, penalty), shown & (fold == judge))
            for penalty in (1 / 0.003, 1 / 0.01, 1 / 0.03, 1 / 0.1)
        }
        parameters = fitted(shown & (fold != own), min(losses, key=losses.__getitem__))
        part = fold == own
        expected[part] = 1 / (1 + np.exp(-one_hot[part] @ parameters[:4] - parameters[4]))
    assert priors(found, [MOMENTS["validation"]])[0] == pytest.approx(expected, abs=1e-3)


def test_before_enough_is_known_and_between_moments_priors_are_those_of_the_last_moment(log: Log) -> None:
    found = log.fit()
    assert found.items is not None
    moments = found.items.from_ms[1:]
    # 9,000 events in ten days: 1,000 and 2,000 and 4,000 of them are known 1.1, 2.2 and 4.4 days after the start.
    assert moments[:3] / DAY == pytest.approx([1.1, 2.2, 4.4], abs=0.25)
    assert moments[3:].tolist() == list(MOMENTS.values())
    at, before, within = (priors(found, moments + shift) for shift in (0, -1, HOUR))
    assert np.array_equal(at, within)
    assert np.array_equal(before[1:], at[:-1])
    assert (before[0] == np.float32(PRIOR.ctr)).all()


def test_priors_are_calibrated_and_rank_as_the_true_ctrs(log: Log) -> None:
    predicted = priors(log.fit(), [MOMENTS["test"]])[0]
    true = CTR_OF_TOPIC[log.topic]
    assert predicted == pytest.approx(true, abs=0.05)
    assert predicted @ np.bincount(log.item) / len(log.item) == pytest.approx(log.click.mean(), abs=0.01)


def test_ids_speak_where_they_are_asked_to(log: Log) -> None:
    # Whose author it is decides; the topic says nothing.
    generous = (log.item % 20) < 10
    clicked = log._replace(click=np.random.default_rng(2).random(len(log.item)) < np.where(generous, 0.6, 0.1))
    rows = np.arange(ITEMS)
    with_ids, without = (priors(clicked.fit(*ids), [MOMENTS["test"]])[0] for ids in (["ids"], []))
    of_generous = rows % 20 < 10
    assert with_ids[of_generous].min() > 0.4 > 0.3 > with_ids[~of_generous].max()
    assert np.ptp(without) < 0.15


def test_new_items_get_the_mean_of_the_folds_models_from_a_file_without_pickles(log: Log, tmp_path: Path) -> None:
    found = log.fit()
    assert found.serving is not None
    found.serving.save(tmp_path)
    again = ContentCtr.load(tmp_path)
    new = again.ctr([{"topic": f"t{topic}"} for topic in range(4)])
    assert new == pytest.approx(CTR_OF_TOPIC, abs=0.05)
    of_catalogue = priors(found, [MOMENTS["serving"]])[0]
    for topic in range(4):
        known = of_catalogue[log.topic == topic]
        assert known.min() <= new[topic] <= known.max()
    unknown = again.ctr([{"topic": "never seen"}, {}])
    assert unknown.tolist() == pytest.approx([1 / (1 + np.exp(-again.log_odds.intercept))] * 2)


def test_too_small_a_log_keeps_one_prior_and_says_why(log: Log) -> None:
    few = np.flatnonzero(log.item < 40)
    found = log._replace(item=log.item[few], time=log.time[few], click=log.click[few]).fit()
    assert found.items is None
    assert found.serving is None
    assert found.about["reason"].startswith("fewer than 50 items, or 50 clicks")
    assert log._replace(click=np.zeros(len(log.item), np.bool_)).fit().items is None
    assert log._replace(item=log.item[:0], time=log.time[:0], click=log.click[:0]).fit().items is None


def test_no_content_and_no_clock_keep_one_prior_and_say_why(log: Log) -> None:
    plain = config()
    ids, history = pa.array(IDS), log.history()
    by_click = plain.replaced(data={"split": {"by": "last_click"}})
    found = fit_content_prior(by_click, ids, log.table(), history=history, moments_ms=None)
    assert "not by time" in found.about["reason"]
    bare = plain.replaced(features={"meta": []}, model={"structure": "behaviour_only"})
    found = fit_content_prior(bare, ids, log.table(), history=history, moments_ms=MOMENTS)
    assert found.items is None
    assert "no content" in found.about["reason"]
