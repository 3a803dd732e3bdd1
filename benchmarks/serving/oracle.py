"""Every sampled answer beside exact search over what was there when it was asked."""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.serving.item_states import ABSENT, ItemStates, Moment, Write
from benchmarks.serving.setup import Prepared
from recall.data.prepared import PreparedData
from recall.index import load_index
from recall.serving.recaller import Recaller

TOLERANCE = 1e-4
"""Of a score, relative to the largest of its list and 1: float32 sums in another order."""

_BATCH = 64  # questions whose scores are held at a time
_MOST_EXAMPLES = 20

Answer = Mapping[str, Any]


class Oracle:
    """The run as it was built, and the contents that were added, all of them compared one by one.

    Args:
      prepared: the run.
      contents: rows that items were added with.
    """

    def __init__(self, prepared: Prepared, contents: Sequence[Mapping[str, Any]]) -> None:
        self._recaller = Recaller.load(prepared.run)
        self._data = PreparedData.load(prepared.run / "data")
        index = self._recaller.index
        self.index_recall = _measured_recall(load_index(prepared.run / "index").report)
        self.catalogue: list[str] = index.ids.tolist()
        table = prepared.items("item_id", "category")
        category_of = dict(zip(table["item_id"], table["category"], strict=True))
        own = [category_of[name] for name in self.catalogue]
        self._categories = np.asarray([*own, *(row.get("category") for row in contents)], dtype=object)  # [vectors]
        added = self._recaller.new_item_vectors(list(contents))
        self._vectors = np.concatenate([self._recaller.vectors(self.catalogue), added])  # [vectors, dim]

    def check(self, answers: Iterable[Answer], writes: Sequence[Write]) -> dict[str, Any]:
        """Compares answers with the truth.

        An answer is wrong if its list is out of order or has an item twice, if one of its items was not there, was
        clicked before or does not meet the filter, or if a score is not the inner product of user and item; of items
        asked for by id all have to be there. Recall is measured, as an approximate index may miss some.

        Args:
          answers: lines of answers.jsonl.
          writes: all that were acknowledged.

        Returns:
          checked, wrong, examples of what was wrong, score_error (the largest, relative), recall (mean), recall_lowest,
          asked_for_by_id (answers), and versions that answered.
        """
        ordered = sorted(answers, key=lambda answer: answer["sent"])
        states = ItemStates(self.catalogue, writes)
        wrong: list[str] = []
        recalls, errors, by_id = list[float](), [0.0], 0
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            queries = self._queries([answer["question"] for answer in batch])  # [answers, dim]
            for answer, scores in zip(batch, queries @ self._vectors.T, strict=True):
                judged = _Judged(self, answer, scores, states)
                recalls += judged.recall
                errors.append(judged.score_error)
                by_id += judged.is_by_id
                if judged.problem:
                    wrong.append(judged.problem)
        return {
            "checked": len(ordered),
            "asked_for_by_id": by_id,
            "wrong": len(wrong),
            "examples": wrong[:_MOST_EXAMPLES],
            "score_error": max(errors),
            "recall": float(np.mean(recalls)) if recalls else None,
            "recall_lowest": min(recalls, default=None),
            "index_recall": self.index_recall,
            "versions": dict(collections.Counter(answer["answer"]["version"] for answer in ordered)),
        }

    def unwanted(self, question: Mapping[str, Any]) -> set[str]:
        """Items that the asker clicked."""
        if not question.get("exclude_seen", True):
            return set()
        if "features" in question:
            return set(question["features"][0]["history"])
        return set(self._names(self._data.histories.seen(question["users"][0])))

    def meets(self, question: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        """Whether each vector's content meets the question's filter by category."""
        where = question.get("filters", {}).get("where", [])
        return np.isin(self._categories, where[0]["in"]) if where else np.ones(len(self._vectors), bool)

    def _queries(self, questions: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """Query vectors, float32 [questions, dim]; a user of the log is asked for with the clicks of the log."""
        vectors = np.empty((len(questions), self._vectors.shape[1]), np.float32)
        by_user = [place for place, question in enumerate(questions) if "users" in question]
        by_features = [place for place, question in enumerate(questions) if "features" in question]
        if by_user:
            users = [questions[place]["users"][0] for place in by_user]
            histories = [self._names(self._data.histories.recent(user)) for user in users]
            vectors[by_user] = self._recaller.user_vectors(users, histories)
        if by_features:
            rows = [questions[place]["features"][0] for place in by_features]
            vectors[by_features] = self._recaller.user_vectors_of(rows)
        return vectors

    def _names(self, rows: npt.NDArray[np.int64]) -> list[str]:
        return [str(name) for name in self._data.item_ids.take(rows).to_pylist()]


class _Judged:
    """One answer beside the truth.

    Attributes:
      problem: what is wrong, None if nothing is.
      recall: share of the exact list that was found, in a list of one; empty where there was nothing to find.
      score_error: the largest difference from an inner product, relative.
      is_by_id: whether items were asked for by id.
    """

    def __init__(self, oracle: Oracle, answer: Answer, scores: npt.NDArray[np.float32], states: ItemStates) -> None:
        question, result = answer["question"], answer["answer"]["results"][0]
        self._states, self._scores = states, scores
        self._moment: Moment = states.at(answer["sent"], answer["received"])
        self._unwanted, self._meets = oracle.unwanted(question), oracle.meets(question)
        allow = question.get("filters", {}).get("allow")
        self._allow = None if allow is None else set(allow)
        self.is_by_id = self._allow is not None
        self.score_error, self.recall = 0.0, list[float]()
        self.problem = self._wrong(result) or self._measured(question, result)
        if self.problem:
            self.problem += f" (asked at {answer['sent']:.3f}, {answer['answer']['version']}: {_short(question)})"

    def _wrong(self, result: Mapping[str, Any]) -> str | None:
        names = [item["id"] for item in result["items"]]
        given = [item["score"] for item in result["items"]]
        if names and result["source"] != "model":
            return f"a {result['source']} list for a user with clicks"
        if len(set(names)) < len(names):
            return "an item twice"
        if any(earlier < later for earlier, later in itertools.pairwise(given)):
            return "scores that rise"
        scale = max(map(abs, given), default=0.0) + 1
        for name, score in zip(names, given, strict=True):
            if name in self._unwanted:
                return f"{name}, which the user clicked"
            if self._allow is not None and name not in self._allow:
                return f"{name}, which was not asked for"
            rows = self._possible(name)
            if not rows:
                return f"{name}, which was not there"
            rows = [row for row in rows if self._meets[row]]
            if not rows:
                return f"{name}, which does not meet the filter"
            error = min(abs(float(self._scores[row]) - score) for row in rows) / scale
            self.score_error = max(self.score_error, error)
            if error > TOLERANCE:
                return f"{name} with score {score}, not {[float(self._scores[row]) for row in rows]}"
        return None

    def _measured(self, question: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
        """Recall against those that were there for certain; what was being changed counts if it is as good."""
        sure = self._moment.vectors != ABSENT
        if self._allow is not None:
            named = [self._states.position[name] for name in self._allow]
            sure &= np.isin(np.arange(len(sure)), named)
        sure[[self._states.position[name] for name in self._unwanted]] = False
        items = np.flatnonzero(sure)
        items = items[self._meets[self._moment.vectors[items]]]
        k = min(question["k"], len(items))
        found = [item["score"] for item in result["items"]]
        if len(found) < k:
            return f"{len(found)} items where {k} were there"
        if not k:
            return None
        theirs = self._scores[self._moment.vectors[items]]
        cut = float(np.partition(theirs, len(theirs) - k)[len(theirs) - k])
        as_good = sum(score >= cut - TOLERANCE * (abs(cut) + 1) for score in found)
        self.recall = [] if self.is_by_id else [min(1.0, as_good / k)]
        return None

    def _possible(self, name: str) -> list[int]:
        """Rows of the vectors that an item may have had."""
        item = self._states.position.get(name)
        if item is None:
            return []
        rows = self._moment.changing.get(item) or {int(self._moment.vectors[item])}
        return [row for row in rows if row != ABSENT]


def read_answers(files: Iterable[Path]) -> list[Answer]:
    """All lines of several files."""
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _measured_recall(report: Mapping[str, Any]) -> float | None:
    measured = report.get("measured", {}).get("scann")
    return None if measured is None else float(measured["recall"])


def _short(question: Mapping[str, Any]) -> str:
    return str({name: value for name, value in question.items() if name != "features"})[:200]
