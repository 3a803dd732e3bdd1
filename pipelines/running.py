"""Running a pipeline: on which runner, and how errors of its workers come back."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from recall.errors import DataError, RecallError


@contextlib.contextmanager
def running(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """Yields a pipeline and runs it; errors of workers come back as what was raised there."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        # What DirectRunner runs batches on. By itself it first tries to download another runner.
        standard.runner = "FnApiRunner"
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        pipeline = beam.Pipeline(options=options)
        yield pipeline
        pipeline.run().wait_until_finish()
    except Exception as error:
        raise _as_raised(error) from error
    finally:
        logger.setLevel(level)


def _as_raised(error: Exception) -> Exception:
    """Runners pass errors of workers on as text in an error of their own; finds ours and a full disk in it."""
    text = str(error)
    if isinstance(error, RecallError):  # a runner in this process puts the name of its step behind the message
        return type(error)(re.sub(r" \[while running .*\]$", "", text, flags=re.DOTALL))
    if isinstance(error, OSError):
        return error
    if found := re.findall(r"recall\.errors\.\w+: (.*?)(?: \[while running|\n|$)", text):
        return DataError(found[-1])
    if found := re.findall(r"OSError: (?:\[Errno (\d+)\] )?(.*?)(?: \[while running|\n|$)", text):
        number, message = found[-1]
        return OSError(int(number), message) if number else OSError(message)
    return error
