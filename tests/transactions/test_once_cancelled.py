"""What follows the cancellation of a statement, such as closing its connection, is waited for, each time it comes."""

from __future__ import annotations

import asyncio

import pytest

from orchdb.concurrency import once_cancelled


class Statement:
    """Waits; when it is cancelled it needs a moment more, and ends in one way or another."""

    def __init__(self, end: str) -> None:
        self._end = end
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False

    async def __call__(self) -> str:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.may_end.wait()
            self.ended = True
            if self._end == "raises":
                raise
            if self._end == "fails":
                raise ConnectionError from None
        return "a result that nobody waits for any more"


@pytest.mark.parametrize("end", ["raises", "fails", "returns"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancellation_goes_on_when_it_has_had_its_effect(end: str, times: int) -> None:
    statement = Statement(end)
    task = asyncio.create_task(once_cancelled(statement))
    await statement.begun.wait()
    for _ in range(times):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        assert not statement.ended
    statement.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert statement.ended


async def test_a_time_out_inside_a_statement_is_its_own() -> None:
    async def statement() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "went on"
        return "nothing came"

    assert await once_cancelled(statement) == "went on"


async def test_what_a_statement_raises_is_raised() -> None:
    async def statement() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await once_cancelled(statement)
