"""An error that stands for a driver's exception: nothing of that one comes along, and what the caller had stays."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from orchdb import DatabaseManager, DuplicateError, InvalidValueError, OperationError
from orchdb.raising import raised_as


class DriverError(Exception):
    """Holds the values, as those of drivers do."""


def instead(error: Exception) -> OperationError:
    return OperationError(f"instead of {type(error).__name__}")


async def refused() -> None:
    raise DriverError("secret")


async def fail() -> None:
    await asyncio.sleep(0)
    with raised_as(DriverError, instead):
        await refused()


async def test_the_exception_is_not_attached_and_no_frame_holds_it() -> None:
    with pytest.raises(OperationError, match="instead of DriverError") as caught:
        await fail()
    assert caught.value.__cause__ is caught.value.__context__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert not [value for frame in frames for value in frame.f_locals.values() if isinstance(value, DriverError)]


async def test_what_the_caller_was_handling_is_the_context() -> None:
    callers = KeyError("callers")
    with pytest.raises(OperationError) as caught:
        try:
            raise callers
        except KeyError:
            await fail()
    assert caught.value.__context__ is callers


async def test_what_the_caller_was_handling_is_the_context_of_a_real_error(db: DatabaseManager) -> None:
    callers = KeyError("callers")
    await db.create_orchestrator_agent("scout")
    with pytest.raises(DuplicateError) as caught:
        try:
            raise callers
        except KeyError:
            async with db.transaction() as tx:
                await tx.create_orchestrator_agent("scout")
    assert caught.value.__context__ is callers


def test_another_exception_passes() -> None:
    with pytest.raises(ValueError, match="another"), raised_as((DriverError, KeyError), instead):
        raise ValueError("another")


def test_an_exception_that_stays_itself_keeps_its_cause() -> None:
    cause = KeyError("cause")
    error = InvalidValueError("wrong")
    with pytest.raises(InvalidValueError) as caught, raised_as(InvalidValueError, lambda same: same):
        raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause


def test_nothing_is_raised_where_nothing_was() -> None:
    with raised_as(Exception, instead):
        pass
