"""Makes, teaches and judges content vectors by themselves, before any model reads them.

Imports all packages up to `recall.model`. `encode/` makes vectors of texts and images, `teach/` trains them on clicks,
`judge/` measures what they are worth; `vectors.py` reads them.
"""
