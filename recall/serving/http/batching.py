"""Joins requests that come at the same time with equal options into one call of the model (micro-batching)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from recall.core.errors import RecallError
from recall.serving.http.metrics import Metrics
from recall.serving.http.problems import ServiceError, overloaded

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Job(Generic[Request, Answer]):
    request: Request
    queries: int
    answer: asyncio.Future[Answer]


class Batcher(Generic[Request, Answer]):
    """Collect requests on the event loop and answer them in threads.

    The first request under a key waits `wait_ms` for others. While all threads are busy, later requests join it. So
    batches are small under light load and large under heavy load.

    Args:
      call: takes requests of equal keys; returns an answer or an error for each, in their order. Runs in a thread.
        When it raises a RecallError, the requests are asked one by one.
      wait_ms: time that a request waits for others.
      batch_queries: queries in one call at most; a single request may have more.
      queue_queries: queries that may wait; a request beyond is refused.
      threads: calls at the same time.
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
        metrics: Metrics | None = None,
    ) -> None:
        self._call, self._wait_seconds = call, wait_ms / 1000
        self._batch_queries, self._queue_queries = batch_queries, queue_queries
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._free = asyncio.Semaphore(threads)
        self._waiting: dict[Hashable, deque[_Job[Request, Answer]]] = {}
        self._queued = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = metrics

    async def submit(self, request: Request, *, key: Hashable, queries: int) -> Answer:
        """Return the answer to a request, the same as if it had been asked alone.

        Args:
          request: an argument of `call`.
          key: requests of equal keys may share a call.
          queries: number of queries in the request, for the sizes of batch and queue.

        Raises:
          ServiceError: 503, too many wait already.
          RecallError: the request cannot be answered.
        """
        if self._queued + queries > self._queue_queries:
            raise overloaded(waiting=self._queued, retry_seconds=1)
        job = _Job[Request, Answer](request, queries, asyncio.get_running_loop().create_future())
        self._count(queries)
        if key in self._waiting:
            self._waiting[key].append(job)
        else:
            self._waiting[key] = deque([job])
            self._start(key, self._wait_seconds)
        return await job.answer  # cancelled with the request, and then not asked

    async def close(self) -> None:
        """Answer the waiting requests, then stop the threads."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self._executor.shutdown(wait=True)

    def _start(self, key: Hashable, wait_seconds: float) -> None:
        task = asyncio.create_task(self._answer_next(key, wait_seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_next(self, key: Hashable, wait_seconds: float) -> None:
        """Call the model once, for as many of the requests under a key as fit."""
        await asyncio.sleep(wait_seconds)
        async with self._free:
            jobs = self._next(key)
            if key in self._waiting:  # another thread may be free for the rest
                self._start(key, 0)
            if jobs:
                await self._answer(jobs)

    def _next(self, key: Hashable) -> list[_Job[Request, Answer]]:
        """Take as many requests off the queue as fit into a call; drop cancelled ones."""
        waiting, jobs, queries = self._waiting[key], list[_Job[Request, Answer]](), 0
        while waiting and (not jobs or queries + waiting[0].queries <= self._batch_queries):
            job = waiting.popleft()
            self._count(-job.queries)
            if not job.answer.done():
                jobs.append(job)
                queries += job.queries
        if not waiting:
            del self._waiting[key]
        return jobs

    async def _answer(self, jobs: Sequence[_Job[Request, Answer]]) -> None:
        if self._metrics:
            self._metrics.batch_queries.observe(sum(job.queries for job in jobs))
        try:
            answers = await self._in_thread([job.request for job in jobs])
        except (RecallError, ServiceError) as error:
            if len(jobs) > 1:  # one of them is at fault, the others are not
                for job in jobs:
                    await self._answer([job])
                return
            _settle(jobs[0], error)
        except Exception as error:
            for job in jobs:
                _settle(job, error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                _settle(job, answer)

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
