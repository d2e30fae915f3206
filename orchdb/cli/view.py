"""How a command shows what it found: a table on a terminal, lines with tabs for ``awk``, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from orchdb.cli import cells
from orchdb.cli.output import Output

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from orchdb.location import Location
    from orchdb.manager import DatabaseManager

Kind = Literal["text", "id", "time", "money", "count", "word", "duration", "json", "number", "bar"]
_NUMBERS = frozenset({"money", "count", "duration", "number"})
_GAP = 2
_LONGEST = 1000
"""Of a text in a table; a terminal shows less, and measuring more takes time."""
_LONGEST_WRAPPED = 4000
"""Of a text that is laid out; a longer one is written as it is, which takes no time, and the terminal wraps it."""
_NARROWEST = 16
"""What a column that takes the room that is left has at least."""


@dataclass(frozen=True)
class Column:
    """A column of a list.

    Attributes:
        title: Its head in a table.
        key: Where its value is in a row.
        kind: How the value is shown.
        spare: On a terminal that is too narrow those with the highest number are left out first; 0 stays.
        grows: Whether it takes the room that is left, and is cut where that is not enough.
    """

    title: str
    key: str
    kind: Kind = "text"
    spare: int = 0
    grows: bool = False


@dataclass(frozen=True)
class View:
    """What the options of a command say about its database and its output.

    Attributes:
        location: The database.
        as_json: For programs.
        plain: Lines with tabs.
        utc: Times in UTC instead of in the zone of the machine.
        full: Neither ids are shortened nor texts cut.
    """

    location: Location
    as_json: bool = False
    plain: bool = False
    utc: bool = False
    full: bool = False
    console: Output = field(default_factory=Output)

    @classmethod
    def of(cls, db: str | None, as_json: bool, plain: bool, utc: bool = False, full: bool = False) -> View:
        """The view that the options ask for; what is no terminal gets lines.

        Raises:
            InvalidValueError: The place is not usable, or two options contradict each other.
        """
        from orchdb.cli.running import located
        from orchdb.errors import InvalidValueError

        if as_json and plain:
            raise InvalidValueError("--json and --plain are two kinds of output: choose one")
        console = Output()
        return cls(located(db), as_json, plain or not console.is_terminal, utc, full, console)

    @property
    def for_people(self) -> bool:
        """Whether it is a terminal that shows tables."""
        return not self.as_json and not self.plain

    @cached_property
    def zone(self) -> tzinfo | None:
        """The zone of times; ``None`` for that of the machine."""
        return UTC if self.utc else None

    async def short(self, db: DatabaseManager, rows: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, str]:
        """What a table shows instead of the ids of rows, and of their sessions; nothing where they stay whole."""
        from orchdb.inspection.identifiers import shortened, shortened_sessions

        if not self.for_people or self.full:
            return {}
        ids = [row[key] for row in rows for key in keys if row[key] is not None]
        sessions = [row["session_id"] for row in rows if "session_id" in row]
        return {**await shortened(db, ids), **await shortened_sessions(db, sessions)}

    def json(self, value: object) -> None:
        """Write a value as one line of JSON."""
        self.console.lines([self._json(value)])

    def rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Sequence[Column],
        *,
        nothing: str,
        short: Mapping[str, str] | None = None,
        narrow: Literal["table", "records"] = "table",
    ) -> None:
        """Write a list.

        Args:
            nothing: What to say of an empty one, on standard error.
            short: What a table shows instead of an id.
            narrow: What a terminal gets that has no room for each column: a table beyond its edge, or one row below the
                other, a column a line.
        """
        if self.as_json:
            self.console.lines([self._json(row) for row in rows])
        elif self.plain:
            self.console.lines([self._line(row, columns) for row in rows])
        elif self.full and any(self._is_long(column, row) for row in rows for column in columns):
            self._records(rows, columns)
        elif rows:
            table = self.table(rows, columns, {} if self.full else short or {})
            if narrow == "records" and (table.width or 0) > self.console.width:
                self._records(rows, columns)
            else:
                self.console.print(table, width=max(table.width or 0, self.console.width), crop=False, soft_wrap=False)
        if not rows and not self.as_json:
            from orchdb.cli.running import tell

            tell(nothing)

    def fields(self, record: Mapping[str, Any], shown: Sequence[Column]) -> None:
        """Write one record: for people and for ``awk`` a line for each field, and nothing for those without a value."""
        if self.as_json:
            self.json(record)
            return
        present = [column for column in shown if record.get(column.key) is not None]
        if self.plain:
            self.console.lines([f"{column.key}\t{self._plain(column, record[column.key])}" for column in present])
            return
        self._fields({column: self._exact(column, record[column.key]) for column in present}, overflow="fold")

    def text(self, title: str, text: str) -> None:
        """Write a text as it is, below its title: the terminal wraps its lines, so that they can be copied."""
        from rich.text import Text

        self.console.print(Text(title, style="bold"))
        self.console.lines(line.expandtabs() for line in cells.visible_lines(text).split("\n"))

    def _fields(self, values: Mapping[Column, Text], overflow: Literal["fold", "ellipsis"]) -> None:
        from rich.cells import cell_len
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        titles = max((cell_len(cells.visible(column.title)) for column in values), default=0)
        table.add_column(style="bold", no_wrap=True, min_width=min(titles, self.console.width // 2))
        table.add_column(overflow=overflow, no_wrap=overflow == "ellipsis")
        long = {column: value for column, value in values.items() if len(value) > _LONGEST_WRAPPED}
        for column, value in values.items():
            if column not in long:
                table.add_row(cells.visible(column.title), value)
        self.console.print(table)
        for column, value in long.items():
            self.text(cells.visible(column.title), value.plain)

    def _records(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        """Write the rows below each other."""
        from rich.rule import Rule

        for number, row in enumerate(rows, 1):
            self.console.print(Rule(str(number), align="left", style="dim"))
            present = [column for column in columns if row.get(column.key) is not None]
            if self.full:
                self.fields(row, present)
            else:
                self._fields({each: self._cell(each, row[each.key], _cut) for each in present}, overflow="ellipsis")

    def _is_long(self, column: Column, row: Mapping[str, Any]) -> bool:
        value = row.get(column.key)
        text = self._plain(column, value) if column.kind == "json" else value
        return isinstance(text, str) and len(text) > _LONGEST_WRAPPED

    def _json(self, value: object) -> str:
        if not self.console.encoding.startswith("utf"):
            return json.dumps(value)
        return cells.json_line(value)

    def _line(self, row: Mapping[str, Any], columns: Sequence[Column]) -> str:
        return "\t".join(self._plain(column, row.get(column.key)) for column in columns)

    def _plain(self, column: Column, value: Any) -> str:
        if value is None:
            return ""
        if column.kind == "time":
            return cells.plain_time(value, self.zone)
        if column.kind == "json" and not isinstance(value, str):
            return cells.json_line(value)
        return cells.visible(repr(value) if isinstance(value, float) else str(value))

    def _exact(self, column: Column, value: Any) -> Text:
        from rich.text import Text

        if column.kind == "time":
            return Text(cells.exact_time(value, self.zone))
        if column.kind == "id":
            return Text(cells.visible(str(value)))
        return self._cell(column, value, _exact_text)

    def _cell(self, column: Column, value: Any, text_of: Callable[[Any], str]) -> Text:
        from rich.text import Text

        if value is None:
            return Text("")
        kind = column.kind
        if kind == "word":
            return Text(cells.visible(value), style=cells.STYLES.get(value, ""))
        if kind == "bar":
            return Text(value, style="cyan")
        if kind == "money":
            return Text(cells.money(value))
        if kind == "count":
            return Text(f"{value:,}")
        if kind == "duration":
            return Text(cells.duration(value))
        if kind == "json" and not isinstance(value, str):
            value = cells.json_line(value)
        return Text(text_of(str(value)))

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], short: Mapping[str, str]) -> Table:
        """The rows as a table of Rich's, as wide as it has to be."""
        from rich import box
        from rich.table import Table

        # One that would be there if there was room is not worth any if it is empty.
        shown = [
            column for column in columns if not column.spare or any(row.get(column.key) is not None for row in rows)
        ]
        texts = {column: self._texts(rows, column, short) for column in shown}
        widths = self._widths({column: max(text.cell_len for text in found) for column, found in texts.items()})
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for column, width in widths.items():
            table.add_column(
                texts[column][0].plain,
                justify="right" if column.kind in _NUMBERS else "left",
                no_wrap=not self.full,
                overflow="fold" if self.full else "ellipsis",
                width=width,
            )
        for cells_of_row in zip(*(texts[column][1:] for column in widths), strict=True):
            table.add_row(*cells_of_row)
        table.width = sum(widths.values()) + _GAP * (len(widths) - 1)  # also beyond the terminal: an id is never cut
        return table

    def _widths(self, widths: dict[Column, int]) -> dict[Column, int]:
        """What the columns take: where there is no room the sparest are left out; the growing share the rest."""
        kept = dict(widths)
        least = widths | {column: min(width, _NARROWEST) for column, width in widths.items() if column.grows}

        def room() -> int:
            return self.console.width - sum(least[column] for column in kept) - _GAP * (len(kept) - 1)

        for column in sorted(widths, key=lambda column: -column.spare):
            if column.spare and room() < 0:
                del kept[column]
        rest = max(room(), 0)
        for column, width in kept.items():
            kept[column] = min(width, least[column] + rest)
            rest -= kept[column] - least[column]
        return kept

    def _texts(self, rows: Sequence[Mapping[str, Any]], column: Column, short: Mapping[str, str]) -> list[Text]:
        """The head of a column and its cells."""
        from rich.text import Text

        values = [row.get(column.key) for row in rows]
        if column.kind == "time":
            return self._times(column.title, values)
        if column.kind == "id":
            return [Text(column.title), *(Text(cells.visible(short.get(str(v), str(v or "")))) for v in values)]
        text_of = _nearly_whole if self.full else _cut
        return [Text(column.title), *(self._cell(column, value, text_of) for value in values)]

    def _times(self, title: str, values: Sequence[str | None]) -> list[Text]:
        """Times of a table: the year where it is not this one's, the zone in the head where all have the same."""
        from rich.text import Text

        found = [None if value is None else cells.zoned(value, self.zone) for value in values]
        zones = {cells.zone_of(when) for when in found if when is not None}
        year = datetime.now(self.zone).year
        pattern = "%m-%d %H:%M:%S" if all(when is None or when.year == year for when in found) else "%Y-%m-%d %H:%M:%S"
        texts = [Text(f"{title} ({zones.copy().pop()})" if len(zones) == 1 else title)]
        for value, when in zip(values, found, strict=True):
            if when is None:
                texts.append(Text(cells.visible(value or "")))
            else:
                texts.append(Text(when.strftime(pattern) + (f" {cells.zone_of(when)}" if len(zones) > 1 else "")))
        return texts


def _cut(text: str) -> str:
    """A text for one cell: one line, and of a long one the beginning with a mark."""
    return cells.visible(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _nearly_whole(text: str) -> str:
    """A text for one cell, on several lines if it has some."""
    return cells.visible_lines(text if len(text) <= _LONGEST_WRAPPED else f"{text[:_LONGEST_WRAPPED]}…")


def _exact_text(text: str) -> str:
    return cells.visible_lines(text)
