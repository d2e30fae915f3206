"""The caller's own statements in a block: those that would end its transaction are refused before they run.

Two things see to that. The text of a statement is read here, on its way through SQLAlchemy, so that the refusal can say
what to do instead, and the block goes on. What comes to the database another way (the driver's own connection, a text
that is read wrongly) is the engine's to stop: see the ``transaction`` module of each engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from sqlalchemy import Connection, RootTransaction, event

from orchdb.errors import OperationError

SAVEPOINTS = "orchdb_"
"""How the names of a block's own savepoints begin."""
_SUSPICIOUS = re.compile(
    r"\b(?:abort|begin|close|commit|end|prepare|release|rollback|savepoint|start)\b", re.IGNORECASE
)
_ENDS = frozenset(("abort", "begin", "commit", "end", "start"))
_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<literal>e'(?:[^'\\]|\\.|'')*'|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    |(?P<token>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|[^\W\d][\w$]*|.)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_COMMENT = re.compile(r"/\*|\*/")
_WITH_BODY = frozenset(("function", "procedure", "trigger"))
_BEFORE_END = frozenset((";", "begin", "atomic"))
_HEAD = 8  # so many tokens tell what a statement is


def hold(connection: Connection) -> None:
    """Refuse what would end the connection's transaction, also to whoever has the connection itself."""
    for name in ("commit", "rollback", "close"):
        setattr(connection, name, refuse)
    # On the connection, and not for all of the engine's: a listener costs each statement, and most blocks have no own.
    if not event.contains(connection, "before_cursor_execute", refuse_ends):
        event.listen(connection, "before_cursor_execute", refuse_ends)
    if (transaction := connection.get_transaction()) is not None:
        transaction.__class__ = _HeldTransaction


def free(connection: Connection | None) -> None:
    """Undo ``hold``."""
    if connection is None:
        return
    for name in ("commit", "rollback", "close"):
        vars(connection).pop(name, None)
    if (transaction := connection.get_transaction()) is not None:
        transaction.__class__ = RootTransaction


class _HeldTransaction(RootTransaction):
    """A transaction that only its block ends: an ORM session, say, would roll it back as it closes."""

    __slots__ = ()

    def commit(self) -> NoReturn:
        refuse()

    def rollback(self) -> NoReturn:
        refuse()

    def close(self) -> NoReturn:
        refuse()


def refuse(what: str = "this") -> NoReturn:
    """Say that something is refused on ``tx.conn``, and what to do instead."""
    raise OperationError(
        f"tx.conn: {what} is refused: db.transaction() begins and ends the transaction. Leave the block to commit it, "
        "or raise in it to undo it; a part that can be undone alone is async with tx.transaction()"
    )


def refuse_ends(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    """Refuse a statement on a connection that is held if it would end the transaction; for ``before_cursor_execute``.

    Raises:
        OperationError: It would. Nothing of it has run.
    """
    if "commit" not in vars(connection) or not _SUSPICIOUS.search(statement):
        return
    for tokens in _statements(statement):
        end = _end_in(tokens)
        if end is not None:
            cursor.close()
            refuse(end)


def _end_in(tokens: list[str]) -> str | None:
    """What in a statement would end the transaction, or touch a savepoint or the cursor of the block's."""
    first, *rest = (token.lower() for token in tokens)
    if first in _ENDS or (first == "prepare" and rest[:1] == ["transaction"]):
        return first.upper()
    if first == "rollback":
        if rest[:1] in (["work"], ["transaction"]):
            del rest[0]
        if rest[:1] != ["to"]:
            return "ROLLBACK"
    elif first == "close" and rest[:1] == ["all"]:
        return "CLOSE ALL, which takes the block's own cursor along,"
    elif first not in ("close", "savepoint", "release"):
        return None
    while rest[:1] in (["to"], ["savepoint"], ["["]):
        del rest[0]
    if not rest or rest[0].strip("\"'`").startswith(SAVEPOINTS) or rest[:2] == ["u", "&"]:
        return f"{first.upper()} of a {'cursor' if first == 'close' else 'savepoint'} called {SAVEPOINTS}…"
    return None


def _statements(sql: str) -> Iterator[list[str]]:
    """The first tokens of each statement in a text."""
    head: list[str] = []
    inside, last = False, ""  # the body of a function or trigger; the word before
    for token in _tokens(sql):
        word = token.lower()
        if word == ";" and not inside:
            if head:
                yield head
            head = []
        elif len(head) < _HEAD:
            head.append(token)
        if inside:
            # The END of a CASE, or of a name, stands behind a part of its statement.
            inside = not (word == "end" and last in _BEFORE_END)
        elif word == "begin":
            inside = _has_body(head)
        last = word
    if head:
        yield head


def _has_body(head: list[str]) -> bool:
    first, *rest = (token.lower() for token in head[:4])
    return first == "create" and not _WITH_BODY.isdisjoint(rest)


def _tokens(sql: str) -> Iterator[str]:
    """Words, names in quotes and signs, without blanks, comments and texts that no name can be."""
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        assert match is not None
        position = match.end()
        if match["comment"]:
            position = _after_comment(sql, position)
        elif match["token"]:
            yield match["token"]


def _after_comment(sql: str, position: int) -> int:
    """Where a comment ends; in Postgres there may be comments in it."""
    depth = 1
    while depth:
        match = _COMMENT.search(sql, position)
        if match is None:
            return len(sql)
        position = match.end()
        depth += 1 if match[0] == "/*" else -1
    return position
