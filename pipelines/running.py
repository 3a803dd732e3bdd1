"""Runs a pipeline: chooses the runner, and raises errors of its workers as they were raised there."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import apache_beam.pipeline
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from recall import __version__
from recall.core.errors import DataError, RecallError

# Beam finds its own runners by their short names, but this one only by its full name.
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


@contextlib.contextmanager
def running(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """Yield a pipeline and run it; an error of a worker is raised again as the same kind of error.

    Raises:
      RecallError: Dask is asked for and not installed, or its scheduler does not answer.
    """
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        # What DirectRunner runs batches on. By itself it first tries to download another runner.
        standard.runner = "FnApiRunner"
    if standard.runner in ("DaskRunner", "dask", _DASK_RUNNER):
        standard.runner = _DASK_RUNNER
        _prepare_dask(options)
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # In a notebook Beam would name steps by the number of the cell, for which it imports apache_beam.dataframe; that
    # fails with pandas 3 (Beam 2.77).
    module: Any = apache_beam.pipeline
    label_in_ipython, module.alter_label_if_ipython = module.alter_label_if_ipython, _keep_label
    try:
        pipeline = beam.Pipeline(options=options)
        yield pipeline
        result = pipeline.run()
        try:
            result.wait_until_finish()
        finally:
            if client := getattr(result, "client", None):
                # Dask's: left open, the first pipeline's results stay on the cluster while the second one runs.
                client.close()
    except Exception as error:
        raise _as_raised(error) from error
    finally:
        module.alter_label_if_ipython = label_in_ipython
        logger.setLevel(level)


def _keep_label(transform: object, pvalueish: object) -> None:
    """Leave the name of a step as it is."""


def _prepare_dask(options: PipelineOptions) -> None:
    """Check the installation on the cluster before the run, and spread elements over its workers."""
    if importlib.util.find_spec("distributed") is None:
        raise RecallError(
            "the DaskRunner needs dask and distributed; pip install 'recall-towers[dask]', here and on all workers"
        )
    from apache_beam.runners.dask.dask_runner import DaskOptions
    from distributed import Client

    dask = options.view_as(DaskOptions)
    if not dask.npartitions and not dask.partition_size:
        # The runner would put 128 elements into one task, of which each is a whole piece of the log here; and what
        # follows a GroupByKey is cut into as many tasks as what came before it.
        dask.partition_size = 1
    if dask.address:
        try:
            with Client(dask.address, timeout=dask.timeout or "30s", set_as_default=False) as client:
                versions = client.run(eval, "__import__('recall').__version__", on_error="return")
                # A worker that cannot unpickle a task would be asked again and again. `exec` is known anywhere.
                faults = client.run(exec, "import pipelines.transforms", on_error="return")
        except (OSError, ValueError) as error:
            raise RecallError(
                f"--dask_client_address {dask.address}: no Dask scheduler answers there ({error}); start one with "
                "`dask scheduler` and give the address that it prints"
            ) from error
        for worker, found in versions.items():
            if found != __version__ or faults[worker]:
                raise RecallError(
                    f"Dask worker {worker} cannot run recall {__version__} ({faults[worker] or f'it has {found}'}); "
                    "install the same there as here"
                )


def _as_raised(error: Exception) -> Exception:
    """Find our errors, and a full disk, in a runner's error, which holds errors of workers as text."""
    text = str(error)
    if isinstance(error, RecallError):  # a runner in this process puts the name of its step behind the message
        return type(error)(re.sub(r" \[while running .*\]$", "", text, flags=re.DOTALL))
    if isinstance(error, OSError):
        return error
    if "deserialization of the task graph" in text:
        return RecallError("the Dask scheduler lacks recall or has another version; install it there as on the workers")
    if found := re.findall(r"recall(?:\.\w+)+Error: (.*?)(?: \[while running|\n|$)", text):
        return DataError(found[-1])
    if found := re.findall(r"OSError: (?:\[Errno (\d+)\] )?(.*?)(?: \[while running|\n|$)", text):
        number, message = found[-1]
        return OSError(int(number), message) if number else OSError(message)
    return error
