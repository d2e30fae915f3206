"""Several hosts in one Postgres URL, as libpq documents them: each in turn, until one can be used.

psycopg leaves them to libpq. asyncpg knows them too, but gives all of them together the time that each should have, and
takes any of the standbys for ``prefer-standby``; so it is asked for one at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from orchdb.concurrency import in_time
from orchdb.driver_errors import why_not_connected
from orchdb.errors import OperationError

SESSION_ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")


@dataclass(frozen=True)
class Host:
    """Where a server may be; an empty text is what the driver takes by default."""

    name: str = ""
    port: str = ""

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name or "the default host"
        return f"{name}:{self.port}" if self.port else name


def hosts_of(
    query: Mapping[str, str | Sequence[str]], host: str | None, port: int | None, refuse: Callable[[str], NoReturn]
) -> tuple[Host, ...]:
    """The hosts that a URL names, in their order.

    Raises:
        InvalidValueError: There are as many ports as neither one nor the hosts, or one is no number.
    """
    named, numbered = query.get("host"), query.get("port")
    if named is not None and not isinstance(named, str):  # SQLAlchemy's own form, host=a:1&host=b:2
        pairs = [(each.partition(":") if not each.startswith("/") else (each, "", "")) for each in named]
        names, ports = [pair[0] for pair in pairs], [pair[2] for pair in pairs]
    else:
        names, ports = (named if named is not None else host or "").split(","), [str(port or "")]
    if numbered is not None:
        ports = numbered.split(",") if isinstance(numbered, str) else list(numbered)
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        refuse("port: give one for all hosts, or one for each")
    if not all(port == "" or (port.isascii() and port.isdecimal() and int(port) < 65536) for port in ports):
        refuse("port: must be a number from 0 to 65535")
    return tuple(Host(name, port) for name, port in zip(names, ports, strict=True))


async def connect_by_libpq(*parameters: Any, **arguments: Any) -> Any:
    """psycopg's connection: libpq knows what several hosts mean."""
    from orchdb.postgres.psycopg_driver import CancellingConnection  # noqa: PLC0415  # only where it is used

    return await in_time(CancellingConnection.connect(*parameters, **arguments))


async def connect_to_first(hosts: Sequence[Host], attributes: str, *, shuffled: bool, **arguments: Any) -> Any:
    """asyncpg's connection to the first host that can be reached and whose session is as it should be."""
    from orchdb.postgres.asyncpg_driver import CancellingConnection  # noqa: PLC0415  # only where it is used

    asyncpg: Any = import_module("asyncpg")
    arguments["connection_class"] = CancellingConnection
    order = random.sample(hosts, len(hosts)) if shuffled else list(hosts)
    wanted = ["standby", "any"] if attributes == "prefer-standby" else [attributes]
    failures: list[tuple[Host, BaseException]] = []
    for attribute in wanted:
        for host in order:
            address = {"host": host.name or None, "port": int(host.port) if host.port else None}
            try:
                return await in_time(asyncpg.connect(**address, **arguments, target_session_attrs=attribute))
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched) as error:
                failures.append((host, error))
    if len(hosts) == 1:
        raise failures[-1][1]
    raise OperationError("; ".join(f"{host}: {why_not_connected(error)}" for host, error in failures))
