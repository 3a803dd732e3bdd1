"""What happened to yesterday's items over the API is served by today's run."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from recall.config.experiment import Config
from recall.core.artifacts import read_json, write_json
from recall.index import load_index, save_index
from recall.runs.carrying import carry
from recall.runs.since import Since
from recall.runs.steps import Steps
from recall.serving.recaller import Recaller
from tests.helpers.raw_items import raw

FIRST_MS = 1_700_000_000_000


def test_added_refreshed_and_deleted_items_of_yesterday_are_served_by_todays_model(
    finished: Path, copied: Path, settings: Config, tmp_path: Path
) -> None:
    yesterday = Path(shutil.copytree(finished, tmp_path / "yesterday"))
    recaller = Recaller.load(yesterday, living=True)
    recaller.add_items([raw(settings, 3, "new")])
    recaller.refresh_posterior(
        pd.DataFrame(
            {"item_id": ["new", "i020"], "exposures": [50, 900], "clicks": [20, 30], "first_time_ms": [FIRST_MS] * 2}
        )
    )
    recaller.delete_items(["i005"])
    before = recaller.vectors(["new", "i020"])
    # Today's model has the same towers under another fingerprint, its index another cold bias.
    manifest = read_json(copied / "model" / "manifest.json")
    write_json(copied / "model" / "manifest.json", {**manifest, "fingerprint": "today"}, checksummed=True)
    index = load_index(copied / "index")
    index.report = {**index.report, "cold_bias": index.report["cold_bias"] + 0.5}
    save_index(index, copied / "index", fingerprint="today")

    step = replace(Steps(settings, finished).index(), part=copied / "index", inputs={"vectors": "today"})
    told = io.StringIO()
    for _ in range(2):  # yesterday's writer is at work meanwhile
        carry(Since(yesterday, "", ""), step, Console(file=told, width=300))
    carry(None, step, Console(file=told))
    assert told.getvalue().splitlines() == [f"index: took over the changes of 3 items from {yesterday}"]
    recaller.close()

    today = Recaller.load(copied, living=True)
    assert today.items.living is not None
    np.testing.assert_allclose(today.vectors(["new"])[0, :-1], before[0, :-1], atol=1e-5)  # the towers are the same
    np.testing.assert_array_equal(today.vectors(["i020"]), index.vectors(["i020"]))
    assert not np.allclose(before[1], index.vectors(["i020"])[0], atol=1e-3), "its counts had moved it"
    assert today.items.living.changed.counts()["new"] == (50, 20, FIRST_MS)
    found = today.recall(["u001"], k=400, exclude_seen=False)
    assert found.titles["new"] == "title of new"
    assert "i005" not in found.ids[0]
    today.close()
