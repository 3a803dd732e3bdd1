"""Searches item vectors: exact and approximate indexes behind one contract.

Imports `recall.core` and the index section of `recall.config`; the only home of ScaNN. Start at `base.py` (`Index`).
`build_index` -> `Index.search`. `save_index` and `load_index` keep versions on disk; `list_versions`, `roll_back` and
`collect` look after them. An index too large for one machine is in shards: `build_saved_index` builds them one by one,
`load_shard` opens one, `merge_results` joins their answers. `LivingIndex` adds, changes and deletes items meanwhile.
"""

from recall.index.base import Index
from recall.index.build.build import build_index, build_saved_index
from recall.index.build.tuning import Measurement, measure
from recall.index.exact import ExactIndex
from recall.index.living.carry import carry_index
from recall.index.living.drift import Drift
from recall.index.living.index import LivingIndex
from recall.index.living.new_journal import NewJournal, new_journal
from recall.index.living.rebalancing import RebalancePolicy, Rebalancer
from recall.index.living.snapshot import LivingSnapshot
from recall.index.results import SearchResult, merge_results
from recall.index.saved.housekeeping import Version, collect, list_versions, roll_back
from recall.index.saved.store import load_index, load_shard, save_index
from recall.index.scann import ScannIndex
from recall.index.shards import Shard, ShardedIndex, shard_of

__all__ = [
    "Drift",
    "ExactIndex",
    "Index",
    "LivingIndex",
    "LivingSnapshot",
    "Measurement",
    "NewJournal",
    "RebalancePolicy",
    "Rebalancer",
    "ScannIndex",
    "SearchResult",
    "Shard",
    "ShardedIndex",
    "Version",
    "build_index",
    "build_saved_index",
    "carry_index",
    "collect",
    "list_versions",
    "load_index",
    "load_shard",
    "measure",
    "merge_results",
    "new_journal",
    "roll_back",
    "save_index",
    "shard_of",
]
