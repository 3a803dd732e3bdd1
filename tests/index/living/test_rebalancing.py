"""Checks the policy of rebalancing and the thread that follows it."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from recall.core.errors import ArtifactError, ConfigError
from recall.index import LivingIndex, RebalancePolicy, Rebalancer
from tests.helpers.living_oracle import DIM, KINDS, assert_holds, drawn, saved


def test_the_background_rebalances_when_the_policy_says_so(tmp_path):
    expected = saved(tmp_path)
    policy = RebalancePolicy(most_recent_share=0.1, least_changes=20, check_every_seconds=0.01)
    with LivingIndex.open(tmp_path) as index:
        rebalancer = Rebalancer(index, policy)
        assert rebalancer.check() is None
        index.upsert([f"n{row}" for row in range(30)], drawn(30, seed=2))
        assert rebalancer.check() is None, "30 of 330 are fewer than a tenth"
        index.upsert([f"m{row}" for row in range(10)], drawn(10, seed=3))
        assert rebalancer.check() == "11.8% of the items are recent, more than 10.0%"
        assert rebalancer.rebalances == 1
        index.delete([f"i{row}" for row in range(100)])
        with Rebalancer(index, policy) as background:
            while background.rebalances == 0 and background.error is None:
                assert len(index.search(np.ones(DIM), 240).ids[0]) == 240
        assert background.error is None
        assert index.drift(sample=0).gone == 0
        for row in range(100):
            del expected[f"i{row}"]
        expected |= {f"n{row}": vector for row, vector in enumerate(drawn(30, seed=2))}
        expected |= {f"m{row}": vector for row, vector in enumerate(drawn(10, seed=3))}
        assert_holds(index, expected)


def test_the_background_outlives_a_time_without_descriptors(tmp_path, caplog):
    saved(tmp_path)
    policy = RebalancePolicy(most_recent_share=0.0, least_changes=1, check_every_seconds=0.005)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["new"], drawn(1, seed=2))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            background = Rebalancer(index, policy).start()
            while background.work.state.failures < 3:
                assert background.is_running
            failed = background.work.state
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while background.rebalances == 0:
            assert background.is_running
        while background.work.state.failures:
            pass
        background.stop()
    assert failed.last_success is None
    assert background.error is None
    assert background.work.state.last_success is not None
    lines = [record.message for record in caplog.records if "not rebalanced" in record.message]
    assert len(lines) == 1, "one line for a kind of error, however often it comes"
    assert not background.is_running


def test_a_rebalance_under_way_is_given_up_when_the_index_is_closed(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path, config=KINDS["scann"]) as index:
        index.upsert(["new"], drawn(1, seed=2))
        background = Rebalancer(index, RebalancePolicy(most_recent_share=0.0, least_changes=1))
        background.stop()
        with pytest.raises(ArtifactError, match="the rebalance was given up"):
            background.check()
        assert_holds(index, {**expected, "new": drawn(1, seed=2)[0]})
    assert [version.name for version in (tmp_path / "versions").iterdir()] == ["0001"]


@pytest.mark.parametrize(
    "wrong", [{"most_recent_share": 1.5}, {"least_recall": -1}, {"least_changes": 0}, {"check_every_seconds": 0}]
)
def test_impossible_policies_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RebalancePolicy(**wrong)
