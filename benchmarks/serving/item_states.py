"""What items were when: from the times of writes, what an answer may hold and what it has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ABSENT = -1


class Write(NamedTuple):
    """An acknowledged change of one item; times are of the monotonic clock, seconds.

    Attributes:
      item: id.
      content: number of the content that it was upserted with, ABSENT if it was deleted.
      sent: when the request left.
      acknowledged: when its answer had arrived.
    """

    item: str
    content: int
    sent: float
    acknowledged: float


@dataclass(frozen=True)
class Moment:
    """Items while a question was under way.

    Attributes:
      vectors: int [items], row of the vector that each item has for certain; ABSENT if it is absent for certain, or
        was being changed.
      changing: by item, the rows of the vectors that it may have had, ABSENT among them where it may have been absent.
    """

    vectors: npt.NDArray[np.int64]
    changing: dict[int, set[int]] = field(default_factory=dict)

    def allows(self, item: int, vector_row: int) -> bool:
        """Whether the item may have had this vector."""
        return vector_row in self.changing.get(item, {int(self.vectors[item])})


class ItemStates:
    """Replays writes for questions in the order in which they were sent.

    Rows of vectors are those of the catalogue, and after them those of contents that were added.

    Args:
      catalogue: ids of the items that are there from the beginning.
      writes: of one writer, which sends a request after the answer to the one before.
    """

    def __init__(self, catalogue: Sequence[str], writes: Iterable[Write]) -> None:
        self._writes = list(writes)
        names = dict.fromkeys([*catalogue, *(write.item for write in self._writes)])
        self.position = {name: position for position, name in enumerate(names)}
        self.catalogue_size = len(catalogue)
        self._vectors = np.full(len(names), ABSENT, np.int64)  # [items]
        self._vectors[: len(catalogue)] = np.arange(len(catalogue))
        self._done = 0  # writes that are in _vectors

    def at(self, sent: float, received: float) -> Moment:
        """Items between sending a question and having its answer.

        Args:
          sent: not before that of the call before.
          received: when the answer had arrived.
        """
        while self._done < len(self._writes) and self._writes[self._done].acknowledged <= sent:
            write = self._writes[self._done]
            self._vectors[self.position[write.item]] = self._row(write)
            self._done += 1
        vectors, changing = self._vectors.copy(), dict[int, set[int]]()
        for write in self._writes[self._done :]:
            if write.sent >= received:
                break
            item = self.position[write.item]
            changing.setdefault(item, {int(self._vectors[item])}).add(self._row(write))
            vectors[item] = ABSENT
        return Moment(vectors, changing)

    def _row(self, write: Write) -> int:
        return ABSENT if write.content == ABSENT else self.catalogue_size + write.content
