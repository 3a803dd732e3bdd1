"""Search over item vectors: exact and approximate indexes behind one contract.

`build_index` -> `Index.search`; `save_index` and `load_index` keep versions on disk.
"""

from recall.index.base import Index, SearchResult
from recall.index.build import build_index
from recall.index.exact import ExactIndex
from recall.index.scann_index import ScannIndex
from recall.index.store import load_index, save_index
from recall.index.tuning import Measurement, measure

__all__ = [
    "ExactIndex",
    "Index",
    "Measurement",
    "ScannIndex",
    "SearchResult",
    "build_index",
    "load_index",
    "measure",
    "save_index",
]
