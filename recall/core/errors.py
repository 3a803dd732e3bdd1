"""Defines the one family of exceptions that recall raises where a user's input enters."""

import errno
import os


class RecallError(Exception):
    """Form the base of all errors that recall raises on purpose. Messages say what was expected, found, and to do.

    Example:
      >>> try:
      ...     recall.Recaller.load("runs/none")
      ... except recall.RecallError as error:
      ...     print(type(error).__name__)
      ArtifactError
    """


class ConfigError(RecallError):
    """Report a wrong experiment file: the key, the value found there, and the value to write instead.

    Example:
      >>> recall.load_config("experiment.yaml", ["training.epochs=none"])
      Traceback (most recent call last):
      recall.core.errors.ConfigError: experiment.yaml: training.epochs...
    """


class DataError(RecallError):
    """Report an input file that cannot be used: the file, the place in it, and how to mend it.

    Example:
      >>> recall.build_index(["a", "a"], np.eye(2))
      Traceback (most recent call last):
      recall.core.errors.DataError: ...
    """


class ArtifactError(RecallError):
    """Report a published file that is missing, damaged, or made by another configuration.

    Example:
      >>> recall.PreparedData.load("runs/none/data")
      Traceback (most recent call last):
      recall.core.errors.ArtifactError: runs/none/data...
    """


def shown(value: object, *, most: int = 80) -> str:
    """Format a value for an error message; cut a long one after its beginning."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def disk_problem(error: Exception) -> str | None:
    """Describe the disk problem behind an error, or return None. TensorFlow has its own errors for a full disk."""
    if isinstance(error, OSError):
        return str(error)
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    from_tensorflow = type(error).__module__.startswith("tensorflow.")
    return next((text for text in texts if from_tensorflow and text in str(error)), None)
