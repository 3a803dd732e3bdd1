"""Answers requests, without any HTTP.

`Service` owns the loaded version and its recaller; `schemas.py` has the requests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from recall.core.errors import ArtifactError, RecallError
from recall.index import LivingIndex, RebalancePolicy, Rebalancer
from recall.serving.http.failures import storage_problem
from recall.serving.http.metrics import Metrics
from recall.serving.http.parts import Answered, Question
from recall.serving.http.problems import ServiceError
from recall.serving.http.schemas import Candidate, RecallAnswer, RecallRequest, Result, SimilarRequest, WriteAnswer
from recall.serving.http.snapshot import Snapshot
from recall.serving.recaller import Recaller
from recall.serving.search.candidates import FALLBACK_UNFILTERED, MODEL, Candidates


class Service:
    """Answer from the current snapshot, until `swap` replaces it between two calls.

    Args:
      metrics: counts calls and results.
      rebalancing: says when an index with writes is built anew; default: a `RebalancePolicy` of its defaults.
    """

    def __init__(self, metrics: Metrics, *, rebalancing: RebalancePolicy | None = None) -> None:
        self._snapshot: Snapshot | None = None
        self._metrics = metrics
        self._writing = threading.Lock()
        self._is_frozen = self._is_closed = False
        self._rebalancer: Rebalancer | None = None
        self._rebalancing = rebalancing

    @property
    def is_ready(self) -> bool:
        """Tell whether a version is loaded."""
        return self._snapshot is not None

    @property
    def snapshot(self) -> Snapshot:
        """Return the version that answers.

        Raises:
          ServiceError: 503, none is loaded yet.
        """
        if self._snapshot is None:
            raise ServiceError(503, "not_ready", "the run is being loaded; try again", headers={"Retry-After": "1"})
        return self._snapshot

    def swap(self, snapshot: Snapshot) -> None:
        """Answer from another version from now on; a call under way keeps the version that it began with."""
        self._snapshot, self._is_frozen = snapshot, False
        self._keep_rebalancing()  # added items are compared one by one until then
        self._metrics.items.set(len(snapshot.recaller.index))
        self._metrics.loaded_at.set_to_current_time()

    def follow(self) -> None:
        """Read the additions and deletions of another process where this one only reads items, else look after its own.

        Raises:
          ArtifactError: the journal cannot be read; answers stay as they were.
        """
        recaller = self.snapshot.recaller
        self._keep_rebalancing()
        if recaller.is_living and not isinstance(recaller.index, LivingIndex):
            recaller.refresh()
            self._metrics.items.set(len(recaller.index))

    def take_over(self, load: Callable[[], Snapshot]) -> Snapshot:
        """Load the version after one with writes: a run has one writer at a time, also within a process.

        Meanwhile the version before answers, and writes wait. If the next version does not load, writes are refused
        until one does.

        Args:
          load: opens the next version for writing.
        """
        with self._writing:
            if not self._is_frozen:
                self._stop_rebalancing()
                self.snapshot.freeze()
                self._is_frozen = True
            snapshot = load()
            self.swap(snapshot)
            return snapshot

    def close(self) -> None:
        """Let another process write to the run."""
        self._is_closed = True
        self._stop_rebalancing()
        if self._snapshot is not None:
            self._snapshot.recaller.close()

    def answer(self, questions: Sequence[Question]) -> list[Answered | RecallError]:
        """Answer requests of equal options (`shared`): an answer or an error for each, in their order.

        Raises:
          RecallError: one request spoils the joint call; asked one by one, the others may be answered.
        """
        started = time.perf_counter()
        snapshot = self.snapshot  # one for all questions
        recalled = [question for question in questions if isinstance(question, RecallRequest)]
        if recalled:
            answers: list[RecallAnswer | RecallError] = list(recall(snapshot, recalled))
        else:
            answers = similar(snapshot, [question for question in questions if isinstance(question, SimilarRequest)])
        self._metrics.model_seconds.observe(time.perf_counter() - started)
        return [answer if isinstance(answer, RecallError) else self._encoded(answer) for answer in answers]

    def add(self, rows: Sequence[dict[str, Any]]) -> WriteAnswer:
        """Add items; an item with a known id replaces the earlier one.

        Args:
          rows: raw values by column of the items file.

        Raises:
          RecallError: a row does not fit the items file; nothing is written.
          ServiceError: 507 or 503, the change cannot be kept on the disk; nothing is written.
        """
        with self._writing, _storage():
            recaller = self._recaller_to_change()
            before = recaller.items.clipped
            recaller.add_items(rows)
            clipped = recaller.items.clipped - before
        for feature, count in clipped.items():
            self._metrics.clipped.labels(feature).inc(count)
        answer = self._written("added", len(rows))
        return {**answer, "clipped": dict(clipped)} if clipped else answer

    def delete(self, ids: Sequence[str]) -> WriteAnswer:
        """Delete items.

        Raises:
          RecallError: the index lacks one of them; nothing is written.
          ServiceError: as of `add`.
        """
        with self._writing, _storage():
            self._recaller_to_change().delete_items(ids)
        return self._written("deleted", len(ids))

    def _keep_rebalancing(self) -> None:
        """Let a thread look after the index, where there are writes to it: a new one if it has died."""
        index = self.snapshot.recaller.index
        if self._is_closed or self._is_frozen or not isinstance(index, LivingIndex):
            return
        if self._rebalancer is None or self._rebalancer.index is not index:
            self._rebalancer = Rebalancer(index, self._rebalancing)
            self._metrics.show(self._rebalancer.work)
        try:
            self._rebalancer.start()
        except RuntimeError as error:  # no thread left: the next look tries again
            self._rebalancer.work.failed(error)

    def _stop_rebalancing(self) -> None:
        if self._rebalancer is not None:
            self._rebalancer.stop()
            self._rebalancer = None

    def _recaller_to_change(self) -> Recaller:
        if self._is_frozen:
            raise ServiceError(503, "not_ready", "the run's new version does not load yet; writes wait for it",
                               headers={"Retry-After": "10"})  # fmt: skip
        return self.snapshot.recaller

    def _written(self, operation: str, items: int) -> WriteAnswer:
        self._metrics.writes.labels(operation).inc(items)
        self._metrics.items.set(len(self.snapshot.recaller.index))
        return {"items": items, "version": self.snapshot.version}

    def _encoded(self, answer: RecallAnswer) -> Answered:
        for result in answer["results"]:
            self._metrics.results.labels(result["source"]).inc()
        return Answered.of(answer)


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """Tell failures of the files that a change is kept in from mistakes of the change."""
    try:
        yield
    except (ArtifactError, OSError) as error:
        raise storage_problem(error) from error


def recall(snapshot: Snapshot, requests: Sequence[RecallRequest]) -> list[RecallAnswer]:
    """Answer requests for users whose options are equal; see `RecallRequest.shared`.

    Raises:
      RecallError: one of them cannot be answered.
    """
    if requests[0].users is None:
        return _by_features(snapshot, requests)
    answers: dict[int, RecallAnswer] = {}
    for together in _compatible(requests):
        chosen = [requests[position] for position in together]
        found = snapshot.recaller.recall(
            [user for request in chosen for user in request.users or ()],
            histories={user: history for request in chosen for user, history in request.histories.items()},
            exclude={user: request.exclude for request in chosen if request.exclude for user in request.users or ()},
            exclude_seen=requests[0].exclude_seen,
            **_options(requests[0]),
        )
        answers.update(zip(together, _split(snapshot, found, chosen), strict=True))
    return [answers[position] for position in range(len(requests))]


def similar(snapshot: Snapshot, requests: Sequence[SimilarRequest]) -> list[RecallAnswer | RecallError]:
    """Answer requests for items whose options are equal; one with an item that the index lacks fails alone."""
    answers: dict[int, RecallAnswer | RecallError] = {}
    for position, request in enumerate(requests):
        try:
            snapshot.recaller.vectors(request.items)  # names those that are unknown
        except RecallError as error:
            answers[position] = error
    known = [position for position in range(len(requests)) if position not in answers]
    if known:
        chosen = [requests[position] for position in known]
        items = [item for request in chosen for item in request.items]
        found = snapshot.recaller.similar(items, exclude=chosen[0].exclude, **_options(chosen[0]))
        answers.update(zip(known, _split(snapshot, found, chosen), strict=True))
    return [answers[position] for position in range(len(requests))]


def _by_features(snapshot: Snapshot, requests: Sequence[RecallRequest]) -> list[RecallAnswer]:
    rows = [row.model_dump(exclude_none=True) for request in requests for row in request.features or ()]
    first = requests[0]
    found = snapshot.recaller.recall(
        features=rows,
        exclude=first.exclude,
        exclude_seen=first.exclude_seen,
        now_ms=_now_ms(),  # of clicks that the rows date; those of users by id are of the log, and count to its end
        **_options(first),
    )
    return _split(snapshot, found, requests)


def _now_ms() -> int:
    """Return the moment of the request, Unix milliseconds."""
    return int(time.time() * 1_000)


def _options(request: Question) -> dict[str, Any]:
    return {
        "k": request.k,
        "filters": request.filters.as_of(_now_ms()),  # the end of the log may be days ago
        "caps": request.caps,
        "min_cold_share": request.min_cold_share,
        "fallback": request.fallback,
    }


def _compatible(requests: Sequence[RecallRequest]) -> list[list[int]]:
    """Group positions of requests that one call can answer: a user has one history and one exclusion list there."""
    groups: list[tuple[list[int], dict[str, Any]]] = []
    for position, request in enumerate(requests):
        own = {user: (request.histories.get(user), request.exclude) for user in request.users or ()}
        for positions, users in groups:
            if all(users.get(user, wanted) == wanted for user, wanted in own.items()):
                positions.append(position)
                users.update(own)
                break
        else:
            groups.append(([position], own))
    return [positions for positions, _ in groups]


def _split(snapshot: Snapshot, found: Candidates, requests: Sequence[Question]) -> list[RecallAnswer]:
    """Split the rows of a joined result into one answer per request."""
    answers, start = list[RecallAnswer](), 0
    for request in requests:
        rows = range(start, start + request.queries)
        results = [_result(snapshot, found, row, details=request.details) for row in rows]
        answers.append({"results": results, "version": snapshot.version})
        start += request.queries
    return answers


def _result(snapshot: Snapshot, found: Candidates, row: int, *, details: bool) -> Result:
    is_item = found.ids[row] != np.array(None)
    ids, scores = found.ids[row][is_item].tolist(), found.scores[row][is_item].tolist()
    items: list[Candidate] = [{"id": item, "score": score} for item, score in zip(ids, scores, strict=True)]
    if details:
        for item, behaviour in zip(items, snapshot.behaviour(ids), strict=True):
            if (title := found.titles.get(item["id"])) is not None:
                item["title"] = title
            item.update(cast("Candidate", behaviour))
    source = MODEL if found.sources is None else found.sources[row]
    result: Result = {"items": items, "source": "model" if source == MODEL else "fallback"}
    if source == FALLBACK_UNFILTERED and items:
        result["relaxed"] = True
    return result
