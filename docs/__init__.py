"""Builds the documentation site: `make docs`, or `mkdocs build --strict -f docs/mkdocs.yml`.

`pages/` holds what people write. `hooks.py` adds what is derived: pages of the configuration and of the commands
(`generate/`), figures (`figures/`), and texts of the repository that the site shows, such as the changelog.
"""
