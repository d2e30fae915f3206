"""An error that stands for a driver's exception: nothing of that one comes along, and what the caller had stays."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable

import pytest

from orchdb import DatabaseManager, InvalidValueError, MissingParentError, NewPrompt, OperationError
from orchdb.raising import raised_as
from tests.support.databases import NO_ROW


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


async def while_handling(callers: Exception, call: Awaitable[object]) -> None:
    try:
        raise callers
    except KeyError:
        await call


async def test_what_the_caller_was_handling_is_the_context() -> None:
    callers = KeyError("callers")
    with pytest.raises(OperationError) as caught:
        await while_handling(callers, fail())
    assert caught.value.__context__ is callers


async def test_what_the_caller_was_handling_is_the_context_of_a_refusal_of_the_database(db: DatabaseManager) -> None:
    callers = KeyError("callers")
    item: NewPrompt = {"agent_id": NO_ROW, "prompt_type": "command", "prompt_text": "secret"}
    with pytest.raises(MissingParentError) as caught:
        await while_handling(callers, db.create_prompts([item]))
    assert caught.value.__context__ is callers
    assert callers.__context__ is callers.__cause__ is None


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
