"""Answers queries from a finished run: candidates for users, items like an item, and changes of items.

Imports all packages up to `recall.model`. Start at `recaller.py` (`Recaller`). A request takes this way: `users/` makes
its query vectors -> `search/` finds, filters and merges candidates -> `items/` has the index and the facts. `users/`
and `search/` may import `items/`, and not each other. `http/` puts a recaller behind HTTP; `export/` packs a run into
one SavedModel.
"""
