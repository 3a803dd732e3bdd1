"""Tests the command line: complete help, errors of one clear line, and output that programs can read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
import pytest

from recall.config.experiment import Config, load_config

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


COMMANDS = (
    "run", "prepare", "train", "vectors", "index", "evaluate", "report", "query", "similar", "compare", "simulate",
    "dataset", "content", "serve", "export", "init", "schema", "doctor",
)  # fmt: skip
Command = Callable[..., "Outcome"]


# Help


def test_help_lists_every_command(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f" {name} " in outcome.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run", ("--out", "--set", "--compare", "--resume")),
        ("prepare", ("--run", "--config", "--set")),
        ("train", ("--run", "--compare", "--resume")),
        ("vectors", ("--run",)),
        ("index", ("--run", "list", "rollback", "gc", "new-journal")),
        ("export", ("--run", "--out", "--k", "--index")),
        ("evaluate", ("--run", "--compare")),
        ("report", ("--run",)),
        (
            "query",
            (
                "--run",
                "--user",
                "--item",
                "-k",
                "--by",
                "--last",
                "--student",
                "--filter",
                "--cap",
                "--min-cold-share",
                "--fallback",
                "--json",
            ),
        ),
        ("similar", ("--run", "--item", "-k", "--by", "--json")),
        ("content", ("evaluate",)),
        ("compare", ("--metric", "--split", "--model", "--other", "--allow-partial", "--json")),
        ("simulate", ("--out", "--users", "--items", "--days", "--exposures", "--seed")),
        ("dataset", ("--out",)),
        ("serve", ("--run", "--host", "--port", "--allow-writes", "--token-file", "--set", "--log-format")),
    ],
)
def test_help_of_a_command_names_its_options(command: Command, name: str, options: tuple[str, ...]) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    for option in options:
        assert option in outcome.out


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "from recall.cli.main import main\n"
        "sys.argv = ['recall', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as exit:\n"
        "    assert exit.code == 0\n"
        "heavy = {'tensorflow', 'apache_beam', 'scann', 'pandas', 'pyarrow', 'numpy', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "simulate" in result.stdout


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "{tmp}/none.yaml", "--out", "{tmp}/run"), "none.yaml: cannot be read (No such file or directory)"),
        (("run", "{tmp}/typo.yaml", "--out", "{tmp}/run"), "model.dimension: unknown key; check the spelling"),
        (("run", "{yaml}", "--out", "{tmp}/run", "--set", "seed"), "--set seed: expected dotted.key=value"),
        (
            ("run", "{yaml}", "--out", "{tmp}/run", "--set", "model.dim=wide"),
            "model.dim: input should be a valid integer, unable to parse string as an integer, found 'wide'",
        ),
        *(
            ((step, "--run", "{tmp}"), "holds no run; start one with `recall run CONFIG.yaml --out {tmp}`")
            for step in ("prepare", "train", "vectors", "index", "evaluate", "report")
        ),
        (("query", "--run", "{tmp}", "--user", "u"), "not there yet; run `recall run CONFIG.yaml --out {tmp}` first"),
        (("query", "--run", "{tmp}"), "query: give either --user ID or --item ID"),
        (("query", "--run", "{tmp}", "--user", "u", "--item", "i"), "query: give either --user ID or --item ID"),
        (("query", "--run", "{finished}", "--user", "u", "--filter", "news"), "filters: expected JSON or a file of it"),
        (("query", "--run", "{finished}", "--user", "u", "--cap", "author_id"), "cap: expected COLUMN=N"),
        (("query", "--run", "{finished}", "--user", "u", "--cap", "duration_s=1"), "duration_s holds double"),
        (("query", "--run", "{finished}", "--item", "nope"), "1 of 1 ids are not in the index: nope; give ids of the"),
        (
            ("dataset", "netflix", "{tmp}", "--out", "{tmp}/x"),
            "found netflix, expected one of ebnerd, kuairand, microlens, mind",
        ),
        (("dataset", "mind", "{tmp}/none", "--out", "{tmp}/x"), "expected the folder of the unpacked data set, found"),
        (("simulate", "--out", "{tmp}/typo.yaml/x", "--users", "5", "--items", "5", "--exposures", "20"), "written"),
    ],
    ids=lambda value: "-".join(value[:4:3]).replace("{tmp}", "") if isinstance(value, tuple) else "",
)
def test_what_a_user_can_mend_is_one_clear_line_and_exit_code_1(
    command: Command, community: Path, finished: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    yaml = community / "experiment.yaml"
    (tmp_path / "typo.yaml").write_text(yaml.read_text().replace("model: {dim", "model: {dimension"))
    places = {"tmp": tmp_path, "yaml": yaml, "finished": finished}
    outcome = command(*(argument.format(**places) for argument in arguments))
    assert outcome.code == 1
    assert outcome.out == ""
    [line] = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message.format(**places) in line
    assert not (tmp_path / "run").exists()


def test_an_error_is_one_line_without_a_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "recall.cli", "train", "--run", str(tmp_path / ("long" * 30))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")


def test_wrong_usage_is_refused_before_anything_is_loaded(command: Command, tmp_path: Path) -> None:
    assert command("query", "--run", tmp_path, "--user", "u", "-k", 0).code == 2
    assert command("run", "experiment.yaml").code == 2  # --out is missing


# Queries


@pytest.mark.parametrize(
    ("option", "asked"), [("--user", "u001"), ("--user", "never seen"), ("--item", "i003")], ids=str
)
def test_query_as_json_gives_k_candidates_best_first(
    command: Command, finished: Path, settings: Config, option: str, asked: str
) -> None:
    outcome = command("query", "--run", finished, option, asked, "-k", 7, "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    assert answer["query"] == asked
    candidates = answer["candidates"]
    assert [candidate["rank"] for candidate in candidates] == [1, 2, 3, 4, 5, 6, 7]
    scores = [candidate["score"] for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    items = pd.read_parquet(settings.data.items.path).set_index("item_id")
    assert [candidate["title"] for candidate in candidates] == [
        items.title[candidate["item"]] for candidate in candidates
    ]
    assert asked not in {candidate["item"] for candidate in candidates}


def test_query_says_when_it_knows_nothing_of_a_user_and_what_answers_instead(command: Command, finished: Path) -> None:
    asked = ("query", "--run", finished, "--user", "never seen", "-k", 3)
    known = json.loads(command("query", "--run", finished, "--user", "u001", "-k", 3, "--json").out)
    assert set(known) == {"query", "candidates"}
    answer = json.loads(command(*asked, "--json").out)
    assert (answer["known"], answer["answered_by"]) == (False, "the model, as for any user without profile and clicks")
    fallen_back = json.loads(command(*asked, "--fallback", "--json").out)
    assert (fallen_back["known"], fallen_back["source"]) == (False, "fallback")
    assert fallen_back["answered_by"] == "popular and fresh items, the fallback"
    shown = command(*asked)
    assert "user never seen (unknown)" in shown.out
    said = " ".join(shown.err.split())  # as wide as the terminal
    assert "user never seen is unknown, in neither the log nor the users file; answered by the model" in said


def test_query_for_people_is_a_table_with_titles(command: Command, finished: Path, settings: Config) -> None:
    wanted = json.loads(command("query", "--run", finished, "--user", "u001", "-k", 3, "--json").out)
    shown = command("query", "--run", finished, "--user", "u001", "-k", 3).out
    assert "user u001" in shown
    for candidate in wanted["candidates"]:
        assert candidate["item"] in shown
        assert f"{candidate['score']:.4f}" in shown
        assert candidate["title"][:12] in shown


@pytest.mark.slow
def test_one_user_and_a_catalogue_smaller_than_k_run_through_to_the_report(command: Command, tmp_path: Path) -> None:
    rows = [f"u,{'abcde'[n * 3 % 5]},{n * 86_400_000}\n" for n in range(10)]
    (tmp_path / "log.csv").write_text("user_id,item_id,time\n" + "".join(rows))
    (tmp_path / "items.csv").write_text("item_id,kind\n" + "".join(f"{item},k\n" for item in "abcde"))
    (tmp_path / "experiment.yaml").write_text(
        "data: {events: {path: log.csv}, items: {path: items.csv}}\n"
        "features: {behaviour: [{name: item_id, type: id}], meta: [{name: kind, type: category}]}\n"
        "model: {query: both, dim: 4, hidden: [8]}\n"
        "training: {epochs: 1}\n"
        "evaluation: {k: [5, 10, 50, 100]}\n"
    )
    run = tmp_path / "run"
    outcome = command("run", tmp_path / "experiment.yaml", "--out", run)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["gated"]["all"]["recall@100"] == 1.0  # all five items fit into the list
    assert "gated_trigger" not in metrics["test"], "clicks a day apart trigger nothing"
    assert (run / "report.html").stat().st_size > 10_000

    answer = json.loads(command("query", "--run", run, "--user", "new", "-k", 9, "--json").out)
    assert sorted(candidate["item"] for candidate in answer["candidates"]) == list("abcde")
    answer = json.loads(command("query", "--run", run, "--item", "a", "-k", 9, "--json").out)
    assert sorted(candidate["item"] for candidate in answer["candidates"]) == list("bcde")
    answer = json.loads(command("query", "--run", run, "--user", "u", "-k", 9, "--json").out)
    assert answer == {"query": "u", "candidates": []}  # has clicked all of them
    assert "u has clicked every item" in command("query", "--run", run, "--user", "u").err


# Data in, settings over


def test_simulate_writes_ordinary_input_files(command: Command, tmp_path: Path) -> None:
    outcome = command("simulate", "--out", tmp_path, "--users", 20, "--items", 30, "--days", 2, "--exposures", 500)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "items.parquet", "users.parquet"]
    assert pq.read_metadata(tmp_path / "items.parquet").num_rows == 30
    events = pq.read_metadata(tmp_path / "events.parquet").num_rows
    assert f"{events:,} exposures of 30 items" in outcome.err


def published_movielens(folder: Path) -> None:
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n296,One (1995),Comedy|Drama\n306,Two,Drama\n")
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n3,296,Funny,1439472355\n")


def published_kuairand(folder: Path) -> None:
    header = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_rand,tab\n"
    (folder / "log_standard_4_08_to_4_21_1k.csv").write_text(header + "3,0,20220408,100,1649376000000,1,0,0,1\n")
    (folder / "log_random_4_22_to_5_08_1k.csv").write_text(header + "4,5,20220423,100,1650672000000,1,0,1,1\n")
    (folder / "video_features_basic_1k.csv").write_text(
        "video_id,author_id,video_type,upload_dt,video_duration,tag\n"
        '0,7,NORMAL,2022-04-10,,\n5,8,AD,2022-04-09,90.0,"1,2"\n'
    )
    (folder / "user_features_1k.csv").write_text("user_id,user_active_degree\n3,full_active\n4,\n")


def published_mind(folder: Path) -> None:
    (folder / "behaviors.tsv").write_text("1\tU1\t11/12/2019 2:14:46 PM\tN2\tN1-1 N2-0\n")
    (folder / "news.tsv").write_text("".join(f"N{n}\tnews\tus\tTitle {n}\t\thttps://x\t[]\t[]\n" for n in (1, 2)))


def published_sequences(folder: Path) -> None:
    (folder / "Beauty.txt").write_text("1 7 8\n")
    (folder / "Beauty_item2attributes.json").write_text('{"8": [3, 4], "7": []}')


@pytest.mark.parametrize("name", ["movielens", "kuairand", "mind", "sequences"])
def test_dataset_turns_a_published_folder_into_input_files(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "published").mkdir()
    publish = {
        "movielens": published_movielens, "kuairand": published_kuairand,
        "mind": published_mind, "sequences": published_sequences,
    }[name]  # fmt: skip
    publish(tmp_path / "published")
    outcome = command("dataset", name, tmp_path / "published", "--out", tmp_path / "data")
    assert outcome.code == 0, outcome.err
    assert "2 events of 2 items in" in outcome.err
    for table in ("events", "items"):
        assert pq.read_metadata(tmp_path / "data" / f"{table}.parquet").num_rows == 2


@pytest.mark.slow
def test_set_overrides_the_experiment_and_the_run_remembers(command: Command, community: Path, tmp_path: Path) -> None:
    yaml = community / "experiment.yaml"
    outcome = command("prepare", "--config", yaml, "--run", tmp_path, "--set", "data.shards=2", "--set", "seed=7")
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "data").glob("train-*"))) == 2
    assert load_config(tmp_path / "config.yaml").seed == 7
    outcome = command("prepare", "--run", tmp_path, "--set", "data.shards=1")  # over the run's own experiment
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "data").glob("train-*"))) == 1
    assert load_config(tmp_path / "config.yaml").seed == 7
    assert "prepare: done before, inputs unchanged" in command("prepare", "--run", tmp_path).err


def test_a_step_alone_works_on_a_run_that_was_moved(command: Command, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "moved")
    for step in ("train", "vectors", "index", "evaluate", "report"):
        outcome = command(step, "--run", tmp_path / "moved")
        assert outcome.code == 0, outcome.err
        assert "done before, inputs unchanged" in outcome.err
