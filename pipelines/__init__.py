"""Runs Apache Beam jobs: thin shells around the pure functions of `recall.data`.

Imports `recall.core`, `recall.config`, `recall.data`, `recall.evaluation`, `recall.model`, `recall.content` and
`recall.serving.export`; the only home of Beam. Only `recall.runs` and `recall.cli` import it. Start at
`training_data.py`.
"""

import logging
import sys

from recall.core.errors import ConfigError
from recall.core.extras import require_packages

try:
    require_packages("pipelines", "apache_beam", "sklearn")
except ConfigError as error:
    if sys.argv[0] == "-m":  # `python -m pipelines.NAME` is on its way to its module, which would print the error
        sys.exit(f"error: {error}")
    raise

# Beam warns on import, through the root logger, about Google Cloud clients that nothing here uses.
_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as _beam  # noqa: F401
finally:
    logging.disable(_disabled)
