"""Makes, trains and judges content vectors by themselves, before any model reads them.

Imports all packages up to `recall.model`. `encode/` makes vectors of texts and images, `teach/` trains them on clicks,
`judge/` measures their quality; `vectors.py` reads them.
"""
