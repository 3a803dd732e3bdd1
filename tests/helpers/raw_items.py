"""Gives tests of a served run raw items to add, and shows which items a filter lets pass."""

from __future__ import annotations

from typing import Any

import pandas as pd

from recall.config.experiment import Config
from recall.serving.recaller import Recaller


def raw(settings: Config, row: int, name: str, **changed: Any) -> dict[str, Any]:
    """The content of an item of the file under another id."""
    frame = pd.read_parquet(settings.data.items.path)
    return {**frame.iloc[row].to_dict(), "item_id": name, "title": f"title of {name}", **changed}


def own(recaller: Recaller, ids: list[str], **wanted: Any) -> list[str]:
    """Which of some items are in the list of all that a user may have."""
    found = recaller.recall(
        ["u001"], k=400, exclude_seen=False, filters={"allow": ids, **wanted.pop("filters", {})}, **wanted
    )
    return sorted(item for item in found.ids[0] if item)


def where(**condition: Any) -> dict[str, Any]:
    return {"filters": {"where": [condition]}}
