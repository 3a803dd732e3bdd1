"""Joins requests that come at the same time with equal options into one call of the model (micro-batching).

A request too large for one call is cut, and the parts of several requests take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from recall.core.errors import RecallError
from recall.serving.http.metrics import Metrics
from recall.serving.http.problems import ServiceError, overloaded

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Parts(Protocol[Request, Answer]):
    """Cut requests into parts, and join the answers of the parts."""

    def cut(self, request: Request, start: int, stop: int) -> Request:
        """Return a request for the queries from `start` to before `stop` of a request."""

    def joined(self, answers: Sequence[Answer]) -> Answer:
        """Return the answer to a request from the answers to all of its parts, in their order."""

    def outdated(self, answers: Sequence[Answer]) -> Sequence[int]:
        """Return the places of answers that do not fit the last one, and have to be asked for again."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Request, Answer]):
    """Hold a request, and how far it is answered.

    Attributes:
      request: the request.
      queries: number of its queries.
      most: queries of one call at most.
      answer: its answer; done with the wait of the caller, too.
      open_parts: numbers of the parts that are still to be asked.
      answers: by number of a part, its answer.
    """

    request: Request
    queries: int
    most: int
    answer: asyncio.Future[Answer]
    open_parts: deque[int]
    answers: dict[int, Answer] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        """Return the number of parts."""
        return max(1, -(-self.queries // self.most))

    def size(self, part: int) -> int:
        """Return the number of queries of a part."""
        return min(self.most, self.queries - part * self.most)


class _Part(NamedTuple, Generic[Request, Answer]):
    """Name one part of a job."""

    job: _Job[Request, Answer]
    number: int


class Batcher(Generic[Request, Answer]):
    """Collect requests on the event loop and answer them in threads.

    The first request under a key waits `wait_ms` for others. While all threads are busy, later requests join it. So
    batches are small under light load and large under heavy load.

    Keys take turns, and so do the requests under a key: of one that is too large for a call the next part is asked when
    all others had their turn. The rest of a request that was answered with an error, or that nobody waits for any more,
    is not asked.

    Args:
      call: takes requests of equal keys; returns an answer or an error for each, in their order. Runs in a thread.
        When it raises a RecallError, the requests are asked one by one.
      wait_ms: time that a request waits for others.
      batch_queries: queries in one call at most; without `parts` a single request may have more.
      queue_queries: queries that may wait; a request beyond is refused.
      threads: calls at the same time.
      parts: cuts requests; None: they are asked whole.
      metrics: counts batches and the queue; optional.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Request]], Sequence[Answer | RecallError]],
        *,
        wait_ms: float,
        batch_queries: int,
        queue_queries: int,
        threads: int,
        parts: Parts[Request, Answer] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._call, self._wait_seconds = call, wait_ms / 1000
        self._batch_queries, self._queue_queries = batch_queries, queue_queries
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._free = asyncio.Semaphore(threads)
        self._waiting: dict[Hashable, deque[_Job[Request, Answer]]] = {}
        self._queued = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: set[_Job[Request, Answer]] = set()
        self._parts, self._metrics = parts, metrics

    async def submit(self, request: Request, *, key: Hashable, queries: int, most: int | None = None) -> Answer:
        """Return the answer to a request, the same as if it had been asked alone.

        Args:
          request: an argument of `call`.
          key: requests of equal keys may share a call.
          queries: number of queries in the request, for the sizes of batch and queue.
          most: queries of one call at most, less than `batch_queries` where a query costs much.

        Raises:
          ServiceError: 503, too many wait already, or the batcher is closed.
          RecallError: the request cannot be answered.
        """
        if self._queued + queries > self._queue_queries:
            raise overloaded(waiting=self._queued, retry_seconds=1)
        most = max(1, min(most or self._batch_queries, self._batch_queries)) if self._parts else max(1, queries)
        job = _Job[Request, Answer](request, queries, most, asyncio.get_running_loop().create_future(), deque())
        job.open_parts.extend(range(job.parts))
        self._jobs.add(job)
        job.answer.add_done_callback(lambda _: self._jobs.discard(job))
        self._count(queries)
        if key in self._waiting:
            self._waiting[key].append(job)
        else:
            self._waiting[key] = deque([job])
            self._start(key, self._wait_seconds)
        return await job.answer  # cancelled with the request, and then not asked

    async def close(self, *, seconds: float | None = None) -> None:
        """Answer the waiting requests, then stop the threads.

        Args:
          seconds: time for that. Then requests that still wait are refused with 503, and calls under way end by
            themselves: they are not waited for. None: as long as it takes.
        """
        loop = asyncio.get_running_loop()
        ends = None if seconds is None else loop.time() + seconds
        while self._tasks and (ends is None or loop.time() < ends):
            await asyncio.wait(set(self._tasks), timeout=None if ends is None else ends - loop.time())
        for job in list(self._jobs):
            _settle(job, ServiceError(503, "overloaded", "the service is stopping", headers={"Retry-After": "1"}))
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._executor.shutdown(wait=not left, cancel_futures=True)

    def _start(self, key: Hashable, wait_seconds: float) -> None:
        task = asyncio.create_task(self._answer_next(key, wait_seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_next(self, key: Hashable, wait_seconds: float) -> None:
        """Call the model once, for as many of the requests under a key as fit."""
        await asyncio.sleep(wait_seconds)
        async with self._free:
            parts = self._next(key)
            if key in self._waiting:  # another thread may be free for the rest
                self._start(key, 0)
            if parts:
                await self._answer(parts, key)

    def _next(self, key: Hashable) -> list[_Part[Request, Answer]]:
        """Take as many parts off the queue as fit into a call; drop jobs that are done.

        A job with further parts goes to the end of the queue, and its next part comes with a later call.
        """
        waiting, parts, queries = self._waiting[key], list[_Part[Request, Answer]](), 0
        for _ in range(len(waiting)):
            job = waiting.popleft()
            if job.answer.done():
                self._count(-sum(map(job.size, job.open_parts)))
                continue
            size = job.size(job.open_parts[0])
            if parts and queries + size > (job.most if self._parts else self._batch_queries):
                waiting.appendleft(job)
                break
            parts.append(_Part(job, job.open_parts.popleft()))
            queries += size
            self._count(-size)
            if job.open_parts:
                waiting.append(job)
        if not waiting:
            del self._waiting[key]
        return parts

    async def _answer(self, parts: Sequence[_Part[Request, Answer]], key: Hashable) -> None:
        if self._metrics:
            self._metrics.batch_queries.observe(sum(job.size(number) for job, number in parts))
        try:
            answers = await self._in_thread([self._request_of(part) for part in parts])
        except (RecallError, ServiceError) as error:
            if len(parts) > 1:  # one of them is at fault, the others are not
                for part in parts:
                    await self._answer([part], key)
                return
            _settle(parts[0].job, error)
        except Exception as error:
            for part in parts:
                _settle(part.job, error)
        else:
            for part, answer in zip(parts, answers, strict=True):
                self._take(part, answer, key)

    def _request_of(self, part: _Part[Request, Answer]) -> Request:
        job, number = part
        if self._parts is None or job.parts == 1:
            return job.request
        return self._parts.cut(job.request, number * job.most, number * job.most + job.size(number))

    def _take(self, part: _Part[Request, Answer], answer: Answer | RecallError, key: Hashable) -> None:
        """Keep the answer of a part, and settle the job with the last one."""
        job, number = part
        if isinstance(answer, RecallError):
            _settle(job, answer)
            return
        job.answers[number] = answer
        if len(job.answers) < job.parts or job.answer.done():
            return
        if self._parts is None or job.parts == 1:
            _settle(job, answer)
            return
        # The one that came last is the newest.
        numbers = [*(other for other in job.answers if other != number), number]
        outdated = self._parts.outdated([job.answers[other] for other in numbers])
        if not outdated:
            _settle(job, self._parts.joined([job.answers[number] for number in range(job.parts)]))
            return
        for place in outdated:
            del job.answers[numbers[place]]
            job.open_parts.append(numbers[place])
        self._count(sum(map(job.size, job.open_parts)))
        if key in self._waiting:
            self._waiting[key].append(job)
        else:
            self._waiting[key] = deque([job])
            self._start(key, 0)

    async def _in_thread(self, requests: Sequence[Request]) -> Sequence[Answer | RecallError]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, requests)

    def _count(self, queries: int) -> None:
        self._queued += queries
        if self._metrics:
            self._metrics.queued_queries.set(self._queued)


def _settle(job: _Job[Request, Answer], outcome: Answer | Exception) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # its request was cancelled meanwhile
        if isinstance(outcome, Exception):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)
