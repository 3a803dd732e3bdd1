"""Work ends when the client is gone, and only then."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from recall.serving.http.disconnects import while_connected


def test_work_for_a_client_that_goes_is_cancelled() -> None:
    async def main() -> None:
        gone, ended = asyncio.Event(), list[str]()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        waiting = asyncio.create_task(while_connected(receive, work()))
        await asyncio.sleep(0)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await waiting
        await asyncio.sleep(0)
        assert ended == ["cancelled"]

    asyncio.run(main())


def test_a_client_that_stays_gets_the_result_or_the_error() -> None:
    async def main() -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def work(outcome: int) -> int:
            await asyncio.sleep(0)
            return 84 // outcome

        assert await while_connected(receive, work(2)) == 42
        with pytest.raises(ZeroDivisionError):
            await while_connected(receive, work(0))

    asyncio.run(main())
