"""The load test: a small one with real processes, and what its oracle calls wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving.item_states import ABSENT, ItemStates, Write
from benchmarks.serving.plan import PLAN, load_plan
from benchmarks.serving.setup import Prepared

# Not imported: that would replace sockets and threads of this whole process.
if not all(importlib.util.find_spec(name) for name in ("locust", "psutil")):
    pytest.skip("the load test needs the extra benchmarks", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
PLAN_OF_TEST = """
full:
  community: {users: 30, items: 1500, days: 1, exposures: 3000}
  clients: [1, 4]
  settle_seconds: 0
  k: 20
  sampled_share: 0.9
  upserts_per_second: 50
  items_per_upsert: 10
  deletes_per_second: 3
  added_items: 100
  contents: 40
  asking_users: 20
  publish_seconds: 1
"""


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a load test of a few seconds, with new versions from another process."""
    folder = tmp_path_factory.mktemp("load")
    (folder / "plan.yaml").write_text(PLAN_OF_TEST)
    options = ["--plan", folder / "plan.yaml", "--minutes", 0.1, "--publish", "republished"]
    options += ["--out", folder, "--results", folder / "results"]
    command = [sys.executable, "-m", "benchmarks.serving", "run", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # Of a slow machine in a few seconds only recall may fall short: it is a mean over few answers.
    assert done.returncode == 0 or "recall is" in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def result(tested: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tested / "results" / "republished.json").read_text())
    return content


def test_the_service_answers_all_clients_and_rightly_while_items_and_versions_change(result):
    assert [phase["clients"] for phase in result["phases"]] == [1, 4]
    for phase in result["phases"]:
        assert phase["failures"] == 0, phase["examples"]
        assert phase["requests"] > 0
        assert 0 < phase["p50_ms"] <= phase["p99_ms"] <= phase["max_ms"]
    assert result["answers"]["wrong"] == 0, result["answers"]["examples"]
    assert result["answers"]["checked"] > result["answers"]["asked_for_by_id"] > 0
    assert result["writes"]["failures"] == []
    assert result["writes"]["upserts"] >= 50
    assert result["versions"]["loaded"], "no version came into service"
    assert result["server"]["problems"] == []
    assert min(result["memory"]["mb"]) > 50


def test_tables_and_plots_come_from_the_results(tested, result):
    page = tested / "page" / "README.md"
    page.parent.mkdir()
    page.write_text((ROOT / "benchmarks" / "serving" / "README.md").read_text())
    command = [sys.executable, "-m", "benchmarks.serving", "tables", "--results", tested / "results", "--readme", page]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    text = page.read_text()
    assert f"| republished | 4 | {result['phases'][1]['requests_per_second']:,.1f} |" in text
    assert f"| republished | {result['answers']['checked']:,} |" in text
    assert {path.name for path in (page.parent / "plots").iterdir()} == {"latency.svg", "memory.svg"}


def test_the_oracle_tells_wrong_answers_from_right_ones(tested, result):
    from benchmarks.serving.oracle import Oracle, read_answers

    plan = load_plan(tested / "plan.yaml")
    prepared = Prepared(tested / "full" / "prepared" / "data", tested / "full" / "prepared" / "run")
    oracle = Oracle(prepared, prepared.contents(plan))
    answers = read_answers([tested / "full" / "republished" / "1" / "answers.jsonl"])
    # Without writes only what the writer had added is wrong, which the oracle then does not know of.
    answers = [
        one for one in answers if "added" not in json.dumps(one["answer"]) and not one["question"].get("filters")
    ]
    right = next(one for one in answers if "users" in one["question"])
    assert oracle.check([right], [])["wrong"] == 0
    items = right["answer"]["results"][0]["items"]
    clicked = next(iter(oracle.unwanted(right["question"])))
    deleted = Write(items[3]["id"], ABSENT, right["sent"] - 2, right["sent"] - 1)
    wrong = {
        "an item twice": [*items[:-1], items[-2]],
        "scores that rise": [items[1], items[0], *items[2:]],
        "with score": [{**items[0], "score": items[0]["score"] + 0.01}, *items[1:]],
        "which the user clicked": [*items[:-1], {**items[-1], "id": clicked}],
        "which was not there": [*items[:-1], {**items[-1], "id": "of another catalogue"}],
        "19 items where 20 were there": items[:-1],
    }
    for problem, instead in wrong.items():
        answer = {**right, "answer": {**right["answer"], "results": [{"items": instead, "source": "model"}]}}
        judged = oracle.check([answer], [])
        assert judged["wrong"] == 1
        assert problem in judged["examples"][0]
    judged = oracle.check([right], [deleted])
    assert f"{items[3]['id']}, which was not there" in judged["examples"][0]
    under_way = deleted._replace(acknowledged=right["received"])
    assert oracle.check([right], [under_way])["wrong"] == 0


def test_items_are_known_for_certain_unless_they_are_being_written():
    writes = [Write("b", 0, 1, 2), Write("new", 1, 3, 4), Write("a", ABSENT, 5, 6), Write("b", 2, 5, 6)]
    states = ItemStates(["a", "b"], writes)
    a, b, new = (states.position[name] for name in ("a", "b", "new"))
    # Rows 0 and 1 are the catalogue's vectors, row 2 + c is content c.
    assert states.at(0, 0.5).vectors.tolist() == [0, 1, ABSENT]
    before = states.at(2.5, 3.5)
    assert before.vectors.tolist() == [0, 2, ABSENT]
    assert before.changing == {new: {ABSENT, 3}}
    during = states.at(4.5, 5.5)
    assert during.vectors[new] == 3
    assert during.changing == {a: {0, ABSENT}, b: {2, 4}}
    after = states.at(7, 8)
    np.testing.assert_array_equal(after.vectors, [ABSENT, 4, 3])
    assert after.changing == {}


def test_the_committed_plan_is_that_of_the_requirement():
    plan = load_plan(PLAN)
    assert plan.community.items == 200_000
    assert plan.clients == (1, 8, 64)
    assert (plan.upserts_per_second, plan.publish_seconds) == (100, 10)
    assert load_plan(PLAN, small=True).community.items < 10_000
