"""Lets something happen between any two lines of the code under test, as another process would let it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


class Interruption:
    """Call a function once, before the n-th line that this thread runs in some files.

    Attributes:
      happened: whether there were as many lines.
    """

    def __init__(self, action: Callable[[], object], *, before_line: int, within: str) -> None:
        self._action, self._left, self._within = action, before_line, within
        self.happened = False

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Wait for the line within the block."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self.happened or self._within not in frame.f_code.co_filename:
            return None
        if event == "line":
            if self._left == 0:
                self.happened = True
                sys.settrace(None)
                self._action()
                return None
            self._left -= 1
        return self._trace
