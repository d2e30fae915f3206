"""The agent that the code is working for, as a context variable: tasks and callbacks inherit it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token

_AGENT: ContextVar[str | None] = ContextVar("orchdb_agent", default=None)

bound_agent = _AGENT.get
"""The id of the agent that is bound here; ``None`` for nobody."""


@contextmanager
def bind_agent(agent_id: str | None) -> Generator[None]:
    """Bind an agent for the block: log records of the block become lines of it, where a ``DatabaseHandler`` takes them.

    ``db.agent_run()`` binds its agent by itself. Tasks that are created in the block inherit it, and so does
    ``asyncio.to_thread``; a thread or a pool of your own does where you run it in ``contextvars.copy_context()``.

    Args:
        agent_id: The id of the agent; ``None`` for nobody.

    Yields:
        Nothing; use it as ``with bind_agent(agent_id): ...``.
    """
    token = bind(agent_id)
    try:
        yield
    finally:
        unbind(token)


def bind(agent_id: str | None) -> Token[str | None]:
    """Bind an agent until ``unbind``.

    Args:
        agent_id: The id of the agent; ``None`` for nobody.

    Returns:
        What ``unbind`` takes.
    """
    return _AGENT.set(agent_id)


def unbind(token: Token[str | None]) -> None:
    """Bind again what was bound before.

    Args:
        token: What ``bind`` returned.
    """
    with suppress(ValueError):  # a block that is closed from elsewhere, such as a generator that is cleared away
        _AGENT.reset(token)
