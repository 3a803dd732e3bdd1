"""Reads public data sets as they are published, and simulates a community.

Imports `recall.core`, and the reader of vectors from `recall.data.features`. Each reader gives a `Dataset` (`files.py`)
or, of a log that may not fit into memory, a `StreamedDataset` (`streams.py`); `write` makes the ordinary input files
that an experiment file points to.
"""

from recall.data.datasets.ebnerd import read_ebnerd
from recall.data.datasets.files import Dataset
from recall.data.datasets.kuairand import read_kuairand, stream_kuairand
from recall.data.datasets.microlens import read_microlens
from recall.data.datasets.mind import read_mind, stream_mind
from recall.data.datasets.movielens import read_movielens
from recall.data.datasets.sequences import read_sequences
from recall.data.datasets.simulation import SimulatedDataset, simulate
from recall.data.datasets.streams import StreamedDataset
from recall.data.datasets.vk_lsvd import read_vk_lsvd
from recall.data.datasets.yambda import read_yambda

__all__ = [
    "Dataset",
    "SimulatedDataset",
    "StreamedDataset",
    "read_ebnerd",
    "read_kuairand",
    "read_microlens",
    "read_mind",
    "read_movielens",
    "read_sequences",
    "read_vk_lsvd",
    "read_yambda",
    "simulate",
    "stream_kuairand",
    "stream_mind",
]
