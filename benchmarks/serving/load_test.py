"""The whole test: a server, clients in phases, a writer and new versions meanwhile; then what the answers are worth."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.common.machine import environment as made_with
from benchmarks.serving.oracle import Oracle, read_answers
from benchmarks.serving.plan import HERE, Plan, Publisher
from benchmarks.serving.processes import Server, Watch, environment, publisher
from benchmarks.serving.setup import prepare
from benchmarks.serving.writer import Writer
from recall.core.artifacts import write_json
from recall.core.errors import RecallError

_PERCENTILES = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "max_ms": 100}
_MOST_POINTS = 300  # of the memory that a result keeps


def measure(
    plan: Plan, *, minutes: float, publish: Publisher, out: Path, results: Path, command: Sequence[str],
    console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Runs the load test, writes results/PUBLISH.json and returns its content.

    Args:
      plan: sizes and rates.
      minutes: of load, shared evenly by the phases.
      publish: who makes new versions.
      out: folder of this size: what is prepared once, and the logs of this test.
      results: folder of the JSON.
      command: as it was typed.
      console: says what happens.

    Raises:
      RecallError: a process did not start or ended early; names its log.
    """
    prepared = prepare(plan, out / "prepared", console=console)
    folder = out / publish
    run = prepared.copy_to(folder / "run")
    contents, asking = prepared.contents(plan), prepared.asking(plan)
    write_json(folder / "asked.json", {"asking": asking.content(), "sampled_share": plan.sampled_share})
    token = secrets.token_hex(16)
    console.print("recall serve ...")
    server = Server(run, token=token, settings=_settings(plan, publish), log=folder / "server.log")
    writer = Writer(
        server.url, token=token, plan=plan, contents=contents, victims=_victims(asking.profiles, prepared.items()),
        users=asking.users, answers=folder / "looked.jsonl",
    )  # fmt: skip
    try:
        with contextlib.ExitStack() as stack:
            if publish == "republished":
                log, every = folder / "publisher.log", plan.publish_seconds
                stack.enter_context(publisher(prepared.run / "index", run / "index", every=every, log=log))
            watch = stack.enter_context(Watch(server.process.pid, run / "index", seconds=min(1.0, minutes)))
            writer.start()
            seconds = 60 * minutes / len(plan.clients)
            phases = [
                _phase(clients, seconds=seconds, server=server, plan=plan, folder=folder, console=console)
                for clients in plan.clients
            ]
            writer.stop()
    finally:
        exit_code = server.stop()
    console.print("comparing the answers with exact search ...")
    oracle = Oracle(prepared, contents)
    asked = read_answers([folder / f"{clients}" / "answers.jsonl" for clients in plan.clients])
    looked = read_answers([folder / "looked.jsonl"])
    content = {
        "publish": publish,
        "plan": plan.model_dump(mode="json"),
        "minutes": minutes,
        "phases": phases,
        "answers": oracle.check([*asked, *looked], writer.writes),
        "writes": _writes(writer),
        "versions": _versions(server, watch),
        "memory": _memory(watch, phases),
        "server": {"exit_code": exit_code, "problems": _problems(server)},
        "command": list(command),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": made_with(threads=psutil.cpu_count() or 1, peers=["locust", "fastapi", "uvicorn"]),
    }
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / f"{publish}.json", content)
    return content


def shortcomings(content: dict[str, Any]) -> list[str]:
    """What of a result a service must not do: errors, wrong answers, writes that failed, too little recall."""
    found = [f"{phase['clients']} clients: {phase['failures']} requests failed" for phase in content["phases"]
             if phase["failures"]]  # fmt: skip
    answers = content["answers"]
    if answers["wrong"]:
        found.append(f"{answers['wrong']} of {answers['checked']} answers are wrong: {answers['examples'][0]}")
    if content["writes"]["failures"]:
        found.append(f"writes failed: {content['writes']['failures'][0]}")
    if answers["recall"] is not None and answers["recall"] < answers["index_recall"]:
        found.append(f"recall is {answers['recall']:.4f}, below the index's {answers['index_recall']:.4f}")
    if content["server"]["exit_code"] not in (0, -signal.SIGTERM):  # uvicorn ends, and hands the signal on
        found.append(f"the server ended with {content['server']['exit_code']}")
    if content["server"]["problems"]:
        found.append(f"the server logged: {content['server']['problems'][0]}")
    return found


def _settings(plan: Plan, publish: Publisher) -> list[str]:
    if publish == "republished":
        return []
    # Whatever was written is reason enough.
    return [f"rebalance_seconds={plan.publish_seconds}", "rebalance_share=0", "rebalance_changes=1"]


def _victims(profiles: Sequence[dict[str, Any]], items: dict[str, list[Any]]) -> list[str]:
    """Items of the catalogue to delete: those that users clicked come first, as their like is recalled often."""
    clicked = dict.fromkeys(item for profile in profiles for item in profile["history"])
    return list(clicked | dict.fromkeys(items["item_id"]))


def _phase(
    clients: int, *, seconds: float, server: Server, plan: Plan, folder: Path, console: Console
) -> dict[str, Any]:
    """So many clients for so long."""
    console.print(f"{clients} clients for {seconds:.0f} s ...")
    out = folder / f"{clients}"
    out.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", str(HERE / "locustfile.py"),
        "--host", server.url, "--users", str(clients), "--spawn-rate", str(clients), "--run-time", f"{seconds:.0f}s",
        "--stop-timeout", "10s", "--asked", str(folder / "asked.json"), "--results", str(out), "--exit-code-on-error=0",
    ]  # fmt: skip
    started, server_cpu = time.monotonic(), server.cpu_seconds()
    with (out / "locust.log").open("w") as log:
        locust = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
    own_cpu = 0.0
    while locust.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(locust.pid).cpu_times()
            own_cpu = times.user + times.system
        with contextlib.suppress(subprocess.TimeoutExpired):
            locust.wait(0.5)
    ended = time.monotonic()
    if locust.returncode:
        raise RecallError(f"locust ended with {locust.returncode}; see {out / 'locust.log'}")
    measured = json.loads((out / "latencies.json").read_text())
    return {
        "clients": clients,
        "began": started,
        "ended": ended,
        **_latencies(measured, settle_seconds=plan.settle_seconds),
        "failures": measured["failures"],
        "examples": measured["examples"],
        "server_cores": (server.cpu_seconds() - server_cpu) / (ended - started),
        "locust_cores": own_cpu / (ended - started),
    }


def _latencies(measured: dict[str, Any], *, settle_seconds: float) -> dict[str, Any]:
    """Requests per second and percentiles of what was asked after the first seconds."""
    sent, milliseconds = np.asarray(measured["sent"]), np.asarray(measured["milliseconds"])
    if not len(sent):
        raise RecallError(f"no question was answered: {measured['examples'][:1]}")
    begin = sent.min() + settle_seconds
    counted = milliseconds[sent >= begin]
    if not len(counted):
        raise RecallError(f"no question was answered after the first {settle_seconds} s; give more --minutes")
    percentiles = {name: float(np.percentile(counted, share)) for name, share in _PERCENTILES.items()}
    answered = float((sent + milliseconds / 1e3).max())
    return {"requests": len(sent), "requests_per_second": len(counted) / max(answered - begin, 1e-9), **percentiles}


def _writes(writer: Writer) -> dict[str, Any]:
    upserts = sum(write.content >= 0 for write in writer.writes)
    latency = np.asarray(writer.milliseconds or [np.nan])
    return {
        "upserts": upserts,
        "deletes": len(writer.writes) - upserts,
        "upserts_per_second": upserts / max(writer.seconds, 1e-9),
        "failures": writer.failures,
        **{name: float(np.percentile(latency, share)) for name, share in _PERCENTILES.items()},
    }


def _versions(server: Server, watch: Watch) -> dict[str, Any]:
    loaded = [event for event in server.events if event["event"] == "loaded"]
    return {
        "published": [{"at": at, "version": name} for at, name in watch.versions[1:]],
        "loaded": [{"at": one["at"], "version": one["version"], "seconds": one["seconds"]} for one in loaded[1:]],
    }


def _memory(watch: Watch, phases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The series, thinned, and how fast it grows: MB per minute, least squares, over its last half and every phase."""
    series = np.asarray([point for point in watch.memory if point[0] <= phases[-1]["ended"]])
    step = -(-len(series) // _MOST_POINTS)
    middle = (series[0, 0] + series[-1, 0]) / 2
    return {
        "at": series[::step, 0].tolist(),
        "mb": series[::step, 1].round(2).tolist(),
        "highest_mb": float(series[:, 1].max()),
        "slope_mb_per_minute": _slope(series[series[:, 0] >= middle]),
        "slope_by_phase": [
            _slope(series[(series[:, 0] >= phase["began"]) & (series[:, 0] <= phase["ended"])]) for phase in phases
        ],
    }


def _slope(series: Any) -> float | None:
    if len(series) < 2:
        return None
    minutes = (series[:, 0] - series[0, 0]) / 60
    return float(np.polyfit(minutes, series[:, 1], 1)[0])


def _problems(server: Server) -> list[str]:
    """What the service logged as a warning or worse."""
    return [str({name: value for name, value in event.items() if name != "at"}) for event in server.events
            if event.get("level") in ("warning", "error", "critical")]  # fmt: skip
