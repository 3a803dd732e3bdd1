"""Click pairs of the training period against a loop over the log."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recall.content.teach.crowd import ClickPairs, click_pairs
from recall.data.prepared import PreparedData
from tests.conftest import Experiment


def pairs_of_the_log(experiment: Experiment, window: int, split_ms: int, rows: dict[str, int]) -> set[tuple[int, int]]:
    """(before, after) of every training click and the clicks before it, by a loop over the log."""
    log = pd.read_parquet(experiment().data.events.path)
    clicks = log[log.is_click == 1].sort_values(["time_ms", "item_id"])
    found = set()
    for _, own in clicks.groupby("user_id"):
        for time_ms, item in own[own.time_ms < split_ms][["time_ms", "item_id"]].itertuples(index=False):
            earlier = own[own.time_ms < time_ms].item_id.tolist()[-window:]
            found |= {(rows[before], rows[item]) for before in earlier if before != item}
    return found


def test_pairs_are_the_training_clicks_and_what_the_user_clicked_before(
    experiment: Experiment, prepared: PreparedData, prepared_by_user: PreparedData
) -> None:
    rows = {item: row for row, item in enumerate(prepared.item_ids.to_pylist())}
    expected = pairs_of_the_log(experiment, 2, prepared.manifest["split"]["validation_start_ms"], rows)
    everything = np.ones(len(rows), bool)
    for data in (prepared, prepared_by_user):
        found = click_pairs(data, everything, window=2)
        assert set(zip(found.before.tolist(), found.after.tolist(), strict=True)) == expected


def test_pairs_with_items_that_do_not_count_are_left_out(prepared: PreparedData) -> None:
    counts = np.arange(len(prepared.item_ids)) % 2 == 0
    every, some = (click_pairs(prepared, chosen, window=3) for chosen in (np.ones(len(counts), bool), counts))
    is_kept = counts[every.before] & counts[every.after]
    assert 0 < len(some.after) == is_kept.sum() < len(every.after)


def test_popularity_is_the_share_of_pairs_that_end_in_an_item() -> None:
    pairs = ClickPairs(np.array([0, 1, 2, 3], np.int32), np.array([1, 1, 1, 0], np.int32))
    np.testing.assert_allclose(pairs.log_frequency(3), np.log([1 / 4, 3 / 4, 1 / 4]), rtol=1e-6)
