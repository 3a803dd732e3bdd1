"""Runs the fuzz of the service small: whatever is sent, there is an answer, and no 5xx but for too much at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.service_fuzz.fuzz import fuzz, shortcomings


def test_hundreds_of_hostile_requests_cause_no_error_of_the_service(
    run: Path, tmp_path: Path, account: Callable[..., None]
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    result = fuzz(copied, requests=250, seed=2, clients=6, idle=40, slow=10, log=tmp_path / "log")
    # How long /healthz waits says something on a machine that does nothing else; the benchmark asks for it.
    assert not shortcomings(result, longest_ms=float("inf"))
    assert "late" not in result["statuses"], result["answers"]
    assert result["answers"]["sound"].get("200", 0) > 0
    answered = ", ".join(f"{count} x {status}" for status, count in result["statuses"].items())
    account("fuzz of the service", result["requests"], "nothing", f"no 5xx but 503 and 507: {answered}")
