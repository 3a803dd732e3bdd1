"""Checks the account of work in the background: when it is tried again, and what is said of it."""

from __future__ import annotations

import errno

from recall.core.background import BackgroundWork


def test_failures_double_the_wait_up_to_a_bound_and_a_success_ends_that():
    work = BackgroundWork("work", every_seconds=2, most_seconds=30)
    waits = [work.wait_seconds]
    for _ in range(6):
        work.failed(OSError(errno.EMFILE, "no descriptors left"))
        waits.append(work.wait_seconds)
    assert waits == [2, 4, 8, 16, 30, 30, 30]
    work.succeeded()
    assert work.wait_seconds == 2


def test_the_wait_is_never_shorter_than_without_failures():
    work = BackgroundWork("work", every_seconds=60, most_seconds=30)
    work.failed(ValueError())
    assert work.wait_seconds == 60


def test_one_line_is_logged_for_each_kind_of_error_and_then_one_in_ten_minutes():
    now = [0.0]
    work = BackgroundWork("work", every_seconds=1, clock=lambda: now[0])
    full, no_descriptors = OSError(errno.ENOSPC, "full"), OSError(errno.EMFILE, "none left")
    assert [work.failed(error) for error in (full, full, no_descriptors, full, ValueError())] == [
        True, False, True, False, True,
    ]  # fmt: skip
    now[0] = 599
    assert not work.failed(full)
    now[0] = 600
    assert work.failed(full)
    work.succeeded()
    assert work.failed(full), "it was well in between"


def test_the_state_tells_failures_age_and_kind_but_no_text_of_errors():
    now = [100.0]
    work = BackgroundWork("work", every_seconds=1, clock=lambda: now[0])
    now[0] = 105
    work.failed(OSError(errno.EIO, "/a/path"))
    state = work.state
    assert (state.failures, state.last_success, state.age_seconds, state.error) == (1, None, 5, "OSError")
    work.succeeded()
    now[0] = 107
    assert (work.state.failures, work.state.age_seconds, work.state.error) == (0, 2, None)
    assert work.state.last_success is not None
