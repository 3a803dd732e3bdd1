"""Reads public data sets as they are published, and simulates a community.

Imports `recall.core`. Each reader gives a `Dataset` (`files.py`), whose `write` makes the ordinary input files that an
experiment file points to.
"""

from recall.data.datasets.files import Dataset
from recall.data.datasets.kuairand import read_kuairand
from recall.data.datasets.mind import read_mind
from recall.data.datasets.movielens import read_movielens
from recall.data.datasets.sequences import read_sequences
from recall.data.datasets.simulation import SimulatedDataset, simulate

__all__ = [
    "Dataset",
    "SimulatedDataset",
    "read_kuairand",
    "read_mind",
    "read_movielens",
    "read_sequences",
    "simulate",
]
