"""Tests micro-batching: which requests share a call, wait or are refused. The calls wait at gates, no clock decides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from recall.core.errors import DataError, RecallError
from recall.serving.http.batching import Batcher
from recall.serving.http.problems import ServiceError


class Model:
    """Double numbers, note which ones come together, and wait at a gate."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, numbers: Sequence[int]) -> list[int | RecallError]:
        self.calls.append(list(numbers))
        self.entered.set()
        assert self.gate.wait(60)
        if len(numbers) > 1 and -13 in numbers:
            raise DataError("one of them is bad")
        return [DataError(f"bad: {number}") if number < 0 else 2 * number for number in numbers]


Run = Callable[[Batcher[int, int]], Awaitable[None]]


def batching(model: Model, run: Run, *, batch_queries: int = 100, queue_queries: int = 100, threads: int = 1) -> None:
    """Run a test against a batcher of the model, and close it."""

    async def main() -> None:
        batcher = Batcher[int, int](
            model, wait_ms=0, batch_queries=batch_queries, queue_queries=queue_queries, threads=threads
        )
        await run(batcher)
        await batcher.close()

    asyncio.run(main())


async def hold(model: Model, batcher: Batcher[int, int]) -> asyncio.Task[int]:
    """Occupy the model with the question 1 until its gate opens."""
    model.gate.clear()
    held = asyncio.create_task(batcher.submit(1, key="", queries=1))
    await asyncio.to_thread(model.entered.wait, 60)
    return held


def ask(batcher: Batcher[int, int], *numbers: int, key: str = "") -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(number, key=key, queries=1)) for number in numbers]


def test_requests_that_come_while_the_model_is_busy_share_its_next_call() -> None:
    model = Model()

    async def run(batcher: Batcher[int, int]) -> None:
        held, waiting = await hold(model, batcher), ask(batcher, 2, 3, 4)
        await asyncio.sleep(0)
        model.gate.set()
        assert await asyncio.gather(held, *waiting) == [2, 4, 6, 8]

    batching(model, run)
    assert model.calls == [[1], [2, 3, 4]]


def test_only_requests_that_ask_alike_share_a_call() -> None:
    model = Model()

    async def run(batcher: Batcher[int, int]) -> None:
        tasks = [task for number in range(4) for task in ask(batcher, number, key=f"{number % 2}")]
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6]

    batching(model, run)
    assert sorted(model.calls) == [[0, 2], [1, 3]]


def test_a_call_takes_no_more_queries_than_it_may_but_a_larger_request_is_answered() -> None:
    model = Model()

    async def run(batcher: Batcher[int, int]) -> None:
        sizes = [2, 1, 1, 9, 1]
        tasks = [asyncio.create_task(batcher.submit(n, key="", queries=size)) for n, size in enumerate(sizes)]
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]

    batching(model, run, batch_queries=3)
    assert model.calls == [[0, 1], [2], [3], [4]]


def test_a_full_queue_refuses_with_503_and_says_when_to_come_again() -> None:
    model = Model()

    async def run(batcher: Batcher[int, int]) -> None:
        held, waiting = await hold(model, batcher), ask(batcher, 2, 3)
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as refused:
            await batcher.submit(4, key="another", queries=1)
        assert (refused.value.status, refused.value.kind) == (503, "overloaded")
        assert int(refused.value.headers["Retry-After"]) >= 1
        model.gate.set()
        assert await asyncio.gather(held, *waiting) == [2, 4, 6]
        assert await batcher.submit(4, key="another", queries=2) == 8  # there is room again

    batching(model, run, queue_queries=2)


def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    model = Model()

    async def run(batcher: Batcher[int, int]) -> None:
        held, waiting = await hold(model, batcher), ask(batcher, 2, 3)
        await asyncio.sleep(0)
        waiting[0].cancel()
        model.gate.set()
        assert await asyncio.gather(held, waiting[1]) == [2, 6]

    batching(model, run)
    assert model.calls == [[1], [3]]


@pytest.mark.parametrize("bad", [-1, -13], ids=["told of one", "raised for all"])
def test_a_request_that_cannot_be_answered_fails_alone(bad: int) -> None:
    async def run(batcher: Batcher[int, int]) -> None:
        answers = await asyncio.gather(*ask(batcher, 2, bad, 3), return_exceptions=True)
        assert answers[::2] == [4, 6]
        assert isinstance(answers[1], DataError)
        assert str(answers[1]) == f"bad: {bad}"

    batching(Model(), run)


def test_a_bug_reaches_all_who_asked_and_the_next_are_answered() -> None:
    class Broken(Model):
        def __call__(self, numbers: Sequence[int]) -> list[int | RecallError]:
            if 0 in numbers:
                raise ZeroDivisionError
            return super().__call__(numbers)

    async def run(batcher: Batcher[int, int]) -> None:
        answers = await asyncio.gather(*ask(batcher, 0, 1), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ZeroDivisionError] * 2
        assert await batcher.submit(5, key="", queries=1) == 10

    batching(Broken(), run)


def test_closing_answers_what_waits() -> None:
    model = Model()

    async def main() -> list[int]:
        batcher = Batcher[int, int](model, wait_ms=1, batch_queries=9, queue_queries=9, threads=2)
        tasks = ask(batcher, 1, 2)
        await asyncio.sleep(0)
        await batcher.close()
        return [task.result() for task in tasks]

    assert asyncio.run(main()) == [2, 4]


# Requests that are cut


class Texts:
    """Cut texts by letters, and join answers of one generation; outdated are the ones of another than the last."""

    def cut(self, request: str, start: int, stop: int) -> str:
        return request[start:stop]

    def joined(self, answers: Sequence[str]) -> str:
        return "".join(answers)

    def outdated(self, answers: Sequence[str]) -> Sequence[int]:
        return [place for place, answer in enumerate(answers) if answer.isupper() != answers[-1].isupper()]


class Letters:
    """Answer texts by themselves, one call after the other as a test lets them through, and note the calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.answers: Callable[[str], str] = str

    def __call__(self, texts: Sequence[str]) -> list[str | RecallError]:
        self.calls.append(list(texts))
        self.entered.release()
        assert self.gate.acquire(timeout=60)
        return [self.answers(text) for text in texts]

    async def let_through(self, calls: int) -> None:
        for _ in range(calls):
            assert await asyncio.to_thread(self.entered.acquire, timeout=60)
            self.gate.release()


def cutting(model: Letters, run: Callable[[Batcher[str, str]], Awaitable[None]], *, batch_queries: int = 3) -> None:
    async def main() -> None:
        batcher = Batcher[str, str](
            model, wait_ms=0, batch_queries=batch_queries, queue_queries=100, threads=1, parts=Texts()
        )
        await run(batcher)
        await batcher.close(seconds=60)

    asyncio.run(main())


def put(batcher: Batcher[str, str], text: str, *, key: str = "", most: int | None = None) -> asyncio.Task[str]:
    return asyncio.create_task(batcher.submit(text, key=key, queries=len(text), most=most))


def test_a_small_request_is_answered_before_a_heavy_one_that_came_first_ends() -> None:
    for key in ("", "other"):  # it asks alike, or has options of its own
        model = Letters()

        async def run(batcher: Batcher[str, str], model: Letters = model, key: str = key) -> None:
            heavy = put(batcher, "abcdefghijkl")
            assert await asyncio.to_thread(model.entered.acquire, timeout=60)  # its first part is asked
            small = put(batcher, "s", key=key)
            await asyncio.sleep(0)
            model.gate.release()
            await model.let_through(2)  # a part of the heavy one at most, and the small one
            assert await small == "s"
            assert not heavy.done()
            await model.let_through(len("abcdefghijkl") // 3 + 1 - 3)
            assert await heavy == "abcdefghijkl"

        cutting(model, run)


def test_parts_of_several_requests_take_turns() -> None:
    model = Letters()

    async def run(batcher: Batcher[str, str]) -> None:
        tasks = [put(batcher, "abcdef"), put(batcher, "ghijkl")]
        await asyncio.gather(*tasks, model.let_through(4))
        assert [task.result() for task in tasks] == ["abcdef", "ghijkl"]

    cutting(model, run)
    assert model.calls == [["abc"], ["ghi"], ["def"], ["jkl"]]


def test_a_costly_request_has_fewer_queries_in_a_call() -> None:
    model = Letters()

    async def run(batcher: Batcher[str, str]) -> None:
        tasks = [put(batcher, "abcd", most=2), put(batcher, "ef", key="cheap")]
        await asyncio.gather(*tasks, model.let_through(3))
        assert [task.result() for task in tasks] == ["abcd", "ef"]

    cutting(model, run)
    assert sorted(model.calls) == [["ab"], ["cd"], ["ef"]]


def test_the_rest_of_a_request_that_nobody_waits_for_any_more_is_not_asked() -> None:
    model = Letters()

    async def run(batcher: Batcher[str, str]) -> None:
        heavy = put(batcher, "abcdefghi")
        assert await asyncio.to_thread(model.entered.acquire, timeout=60)
        heavy.cancel()
        model.gate.release()
        after = put(batcher, "z")
        await model.let_through(1)
        assert await after == "z"

    cutting(model, run)
    assert model.calls == [["abc"], ["z"]]


def test_a_part_that_cannot_be_answered_ends_its_request_alone() -> None:
    model = Letters()

    def answers(text: str) -> str:
        if "b" in text:
            raise DataError("no b")
        return text

    model.answers = answers

    async def run(batcher: Batcher[str, str]) -> None:
        tasks = [put(batcher, "abcdef"), put(batcher, "ghijkl")]
        done, _ = await asyncio.gather(asyncio.gather(*tasks, return_exceptions=True), model.let_through(3))
        assert isinstance(done[0], DataError)
        assert done[1] == "ghijkl"

    cutting(model, run)
    assert model.calls == [["abc"], ["ghi"], ["jkl"]]


def test_all_parts_of_an_answer_are_of_one_version() -> None:
    model = Letters()
    model.answers = lambda text: text if len(model.calls) < 2 else text.upper()  # a new version after the first part

    async def run(batcher: Batcher[str, str]) -> None:
        heavy = put(batcher, "abcdef")
        await asyncio.gather(heavy, model.let_through(3))
        assert heavy.result() == "ABCDEF"

    cutting(model, run)
    assert model.calls == [["abc"], ["def"], ["abc"]]


def test_closing_does_not_wait_for_work_that_nobody_waits_for() -> None:
    model = Letters()

    async def main() -> None:
        batcher = Batcher[str, str](model, wait_ms=0, batch_queries=3, queue_queries=100, threads=1, parts=Texts())
        heavy, waiting = put(batcher, "abcdefghi"), put(batcher, "xyz", key="other")
        assert await asyncio.to_thread(model.entered.acquire, timeout=60)
        await batcher.close(seconds=0)  # while its first part is asked
        for task in (heavy, waiting):
            with pytest.raises(ServiceError) as refused:
                await task
            assert refused.value.status == 503
        model.gate.release()

    asyncio.run(main())
    assert model.calls == [["abc"]]
