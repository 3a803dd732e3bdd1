"""Recalls candidates without forgetting new content: gated two-tower models on TensorFlow, Beam and ScaNN.

The public names, in the order of the data flow:

    config = recall.load_config("experiment.yaml")      # what is to be done
    run = recall.Run(config, "runs/mine")               # prepare, train, vectors, index, evaluate, report
    data = recall.PreparedData.load("runs/mine/data")   # what `prepare` published
    recaller = recall.Recaller.load("runs/mine")        # serves candidates

Names are imported when they are first used, so that `import recall` is instant and needs no TensorFlow.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recall.core.errors import ArtifactError, ConfigError, DataError, RecallError

if TYPE_CHECKING:
    from recall.config.experiment import Config, load_config
    from recall.data.datasets import simulate
    from recall.data.prepared import PreparedData
    from recall.evaluation.slices import evaluate
    from recall.index import Index, build_index, load_index, save_index
    from recall.model.inference import encode_items, encode_queries
    from recall.runs.run import Run
    from recall.runs.tuning.tune import tune
    from recall.serving.recaller import Recaller
    from recall.serving.search.candidates import Candidates
    from recall.serving.search.options import SearchOptions
    from recall.serving.users.asked import UserQuery
    from recall.training.published import load_model
    from recall.training.train import train


__version__ = "0.1.0"  # setup.cfg reads it from here

__all__ = [  # noqa: RUF022 - in the order of the data flow
    "simulate",
    "load_config",
    "Config",
    "Run",
    "tune",
    "PreparedData",
    "train",
    "load_model",
    "encode_items",
    "encode_queries",
    "build_index",
    "save_index",
    "load_index",
    "Index",
    "Recaller",
    "UserQuery",
    "SearchOptions",
    "Candidates",
    "evaluate",
    "RecallError",
    "ConfigError",
    "DataError",
    "ArtifactError",
]

_MODULE_OF = {
    "simulate": "recall.data.datasets",
    "load_config": "recall.config.experiment",
    "Config": "recall.config.experiment",
    "Run": "recall.runs.run",
    "tune": "recall.runs.tuning.tune",
    "PreparedData": "recall.data.prepared",
    "train": "recall.training.train",
    "load_model": "recall.training.published",
    "encode_items": "recall.model.inference",
    "encode_queries": "recall.model.inference",
    "build_index": "recall.index",
    "save_index": "recall.index",
    "load_index": "recall.index",
    "Index": "recall.index",
    "Recaller": "recall.serving.recaller",
    "UserQuery": "recall.serving.users.asked",
    "SearchOptions": "recall.serving.search.options",
    "Candidates": "recall.serving.search.candidates",
    "evaluate": "recall.evaluation.slices",
}


def _choose_keras_2() -> None:
    """Choose Keras 2, under which alone TensorFlow Recommenders runs, before TensorFlow is imported.

    Raises:
      RecallError: TensorFlow is imported with Keras 3 already, or the environment asks for it.
    """
    flag = os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if flag not in ("1", "true", "True"):
        raise RecallError(
            f"the environment variable TF_USE_LEGACY_KERAS is {flag!r}, but recall needs Keras 2 in TensorFlow; "
            "set it to 1, or unset it and let recall do so"
        )
    # With Keras 2 TensorFlow imports tf_keras at once.
    if "tensorflow" in sys.modules and "tf_keras" not in sys.modules:
        raise RecallError(
            "TensorFlow was imported with Keras 3 before recall, which needs Keras 2; import recall before "
            "tensorflow, or set the environment variable TF_USE_LEGACY_KERAS=1 before Python starts"
        )


_choose_keras_2()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'recall' has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
