"""Begins the journal of an index anew where the old one is lost or damaged: `recall index new-journal`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import uuid
from pathlib import Path

from recall.core.artifacts import write_text
from recall.core.errors import ArtifactError
from recall.index.living.carry import append_all, kept_changes
from recall.index.living.compaction import records_of
from recall.index.living.journal import LOCK, Journal
from recall.index.living.journal_files import JournalFiles
from recall.index.living.journal_format import Record
from recall.index.living.promise import Promise, PromiseFile
from recall.index.living.storage import JOURNAL, PROMISE
from recall.index.living.writer_lock import WriterLock
from recall.index.saved.store import journal_through_of, load_version
from recall.index.saved.versions import current_version


@dataclasses.dataclass(frozen=True)
class NewJournal:
    """Describe what a new journal goes on from.

    Attributes:
      version: number of the current version, which is the content of the index from now on.
      put_aside: folder with the files of the old journal; None if there were none.
      given_up: number of acknowledged changes that the version lacks, as far as they are known; None if nobody knows.
    """

    version: str
    put_aside: Path | None
    given_up: int | None


def new_journal(directory: str | Path) -> NewJournal:
    """Put the journal of a saved index aside, and go on from its current version.

    Upserts and deletes that the version lacks are given up. Nothing is removed. The new journal begins with the changes
    that the version contains, so that a version made from the catalogue alone does not undo them: all upserts with
    sources, and the deletes that can still be read in the old journal.

    Args:
      directory: where `save_index` put the index.

    Raises:
      ArtifactError: there is no index, another process writes the journal, or the disk cannot be written.
    """
    directory = Path(directory)
    version = current_version(directory)
    through = journal_through_of(version)
    folder, path = directory / JOURNAL, directory / PROMISE
    lock = WriterLock(folder / LOCK)
    try:
        contained = [*kept_changes(directory, recorded=()), *_deletes_in(version, folder)]
        promise = None
        with contextlib.suppress(ArtifactError):  # it may be damaged, too
            promise = PromiseFile(path).read()
        put_aside = None
        if any(entry.name != LOCK for entry in folder.iterdir()):
            names = (directory / f"{JOURNAL}.aside-{number}" for number in itertools.count(1))
            put_aside = next(name for name in names if not name.exists())
            folder.rename(put_aside)
            if path.exists():
                shutil.copy2(path, put_aside)
        begins_after = through if promise is None else max(through, promise.acknowledged)
        write_text(path, Promise(uuid.uuid4().hex, begins_after, begins_after).line().decode())
        if contained:
            lock.release()  # of the folder that is put aside, if there was one
            begun = Journal(folder, writable=True, promise=path)
            append_all(begun, contained)
            begun.close()
    except OSError as error:
        raise ArtifactError(f"{folder}: could not be put aside ({error}); free some space, then try again") from error
    finally:
        lock.release()
    return NewJournal(version.name, put_aside, None if promise is None else max(0, promise.acknowledged - through))


def _deletes_in(version: Path, folder: Path) -> list[Record]:
    """Return the deletes that a version contains, of the records of a journal up to where it is damaged."""
    last: dict[str, Record] = {}
    through = journal_through_of(version)
    with contextlib.suppress(ArtifactError, OSError):
        for path in JournalFiles(folder).present():  # whether all are there or not
            for record in records_of(path, may_be_torn=True):
                if record.sequence <= through:
                    last.update(dict.fromkeys(record.ids, record))
    names = [name for name, record in last.items() if record.operation == "delete"]
    if not names:
        return []
    saved = load_version(version)
    names = [name for name in names if saved.index.items.row(name) < 0]
    return [Record(0, saved.fingerprint, "delete", tuple(names))] if names else []
