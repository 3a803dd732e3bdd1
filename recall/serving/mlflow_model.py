"""Serves a run as a model of MLflow: `mlflow.pyfunc.load_model(uri).predict(frame)`.

MLflow calls `_load_pyfunc` with the folder of the run. Nothing is pickled, and MLflow is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from recall.config.experiment import Config
from recall.core.errors import DataError
from recall.serving.recaller import Recaller

DEFAULT_K = 10


def asked_column(config: Config) -> Literal["user", "item"]:
    """Return the column that a model is asked by: users, or items where it has a trigger tower alone."""
    return "item" if config.model.query == "trigger" else "user"


class CandidateModel:
    """Recall candidates for the rows of a table.

    Args:
      recaller: of the run.
    """

    def __init__(self, recaller: Recaller) -> None:
        self.recaller = recaller

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Recall candidates.

        Args:
          model_input: a column `user` with user ids, or `item` with item ids.
          params: `k`, the number of candidates.

        Returns:
          A table with a row for each row of the input: `items`, the list of their ids, best first, and `scores`.

        Raises:
          DataError: neither column is there.
        """
        k = int((params or {}).get("k", DEFAULT_K))
        if "user" in model_input:
            found = self.recaller.recall(model_input["user"].tolist(), k=k)
        elif "item" in model_input:
            found = self.recaller.similar(model_input["item"].tolist(), k=k)
        else:
            raise DataError(f"expected a column user or item, found {', '.join(map(str, model_input.columns))}")
        lists = [[item for item in ids if item is not None] for ids in found.ids]
        scores = [row[: len(ids)].astype(float).tolist() for row, ids in zip(found.scores, lists, strict=True)]
        return pd.DataFrame({"items": lists, "scores": scores}, index=model_input.index)


def _load_pyfunc(path: str) -> CandidateModel:
    """Load the model of a folder, for MLflow."""
    return CandidateModel(Recaller.load(Path(path)))
