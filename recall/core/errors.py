"""The one family of exceptions that recall raises at the edge where a user's input enters."""

import errno
import os


class RecallError(Exception):
    """Base of all errors that recall raises on purpose. The message says what was expected, found, and to do."""


class ConfigError(RecallError):
    """The experiment file is wrong: names the key, what was found there, and what to write instead."""


class DataError(RecallError):
    """An input file cannot be used: names the file, the place in it, and how to mend it."""


class ArtifactError(RecallError):
    """A file that an earlier step should have published is missing, damaged, or made by another configuration."""


def shown(value: object, *, most: int = 80) -> str:
    """A value for an error message; of a long one its beginning."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk if that is why something failed; TensorFlow has errors of its own for it."""
    if isinstance(error, OSError):
        return str(error)
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    from_tensorflow = type(error).__module__.startswith("tensorflow.")
    return next((text for text in texts if from_tensorflow and text in str(error)), None)
