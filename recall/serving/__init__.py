"""Answers queries from a finished run: recalled items for users, items like an item, and changes of items.

Imports all packages up to `recall.model`. Start at `recaller.py` (`Recaller`). A request takes this way: `users/` makes
its query vectors -> `search/` finds, filters and merges candidates -> `items/` knows their attributes and posteriors.
`http/` puts it behind HTTP; `export/` packs it into one SavedModel.
"""
