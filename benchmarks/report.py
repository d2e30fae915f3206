"""What the commands leave behind: sections of RESULTS.md, and the plots beside it."""

from __future__ import annotations

import math
import os
import platform
import re
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAMES = {"sqlite": "SQLite", "postgres": "Postgres"}
RESULTS = Path(__file__).parent / "RESULTS.md"
_PACKAGES = ("sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "apsw", "orjson")
_BAR, _GAP, _LEFT, _TOP = 9, 14, 250, 54


def machine() -> str:
    """What the figures were taken with."""
    packages = []
    for name in _PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    python = f"{platform.python_implementation()} {platform.python_version()}"
    busy = f"load average {os.getloadavg()[1]:.1f}"
    return f"{os.cpu_count()} cores, {busy}, {python}, SQLite {sqlite3.sqlite_version}, {', '.join(packages)}"


def write(section: str, text: str) -> None:
    """Replace one section of RESULTS.md; the others stay."""
    whole = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    block = f"{begin}\n## {section[0].upper()}{section[1:]}\n\n{machine()}\n\n{text}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    whole = pattern.sub(lambda _: block, whole) if pattern.search(whole) else f"{whole.rstrip()}\n\n{block}\n"
    RESULTS.write_text(whole, encoding="utf-8")


def plot(name: str, ratios: dict[str, dict[str, float]], title: str) -> None:
    """Draw the ratios: a group for each operation, a bar for each contestant, on a scale of powers of two."""
    operations = list(dict.fromkeys(operation for found in ratios.values() for operation in found))
    rows: list[str] = []
    y = _TOP
    for operation in operations:
        rows.append(f'<text class="o" x="12" y="{y + 10}">{_escaped(operation)}</text>')
        found = {contestant: times[operation] for contestant, times in ratios.items() if operation in times}
        for contestant, ratio in sorted(found.items(), key=lambda pair: pair[1]):
            start, end = sorted((_x(1.0), _x(ratio)))
            kind = "ours" if contestant.startswith("orchdb") else "theirs"
            place = f'x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{_BAR - 2}"'
            rows.append(f'<rect class="{kind}" {place}/>')
            label = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
            beside = max(end, _x(1.0)) + 4
            rows.append(f'<text class="v {kind}" x="{beside:.1f}" y="{y + 7}">{_escaped(contestant)} {label}</text>')
            y += _BAR + 3
        y += _GAP
    grid = "".join(
        f'<line x1="{_x(2.0**power):.1f}" y1="{_TOP - 8}" x2="{_x(2.0**power):.1f}" y2="{y - _GAP}"/>'
        f'<text class="v" x="{_x(2.0**power) - 6:.1f}" y="{_TOP - 14}">{2.0**power:g}</text>'
        for power in range(-2, 9)
    )
    (RESULTS.parent / f"{name}.svg").write_text(_SVG.format(height=y, title=_escaped(title), body=grid + "".join(rows)))


def _x(ratio: float) -> float:
    return _LEFT + (max(-2.5, min(math.log2(ratio), 8)) + 2.5) * 48


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" viewBox="0 0 960 {height}" role="img">
<title>{title}</title>
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }}
.v {{ font-size: 9px; fill: #59636e }} .o {{ font-weight: 600 }}
line {{ stroke: #d1d9e0 }} .b {{ fill: #ffffff }} rect.theirs {{ fill: #afb8c1 }}
rect.ours {{ fill: #0969da }} text.ours {{ fill: #0969da; font-weight: 600 }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }} .v {{ fill: #9198a1 }} line {{ stroke: #3d444d }} .b {{ fill: #0d1117 }}
  rect.theirs {{ fill: #565d66 }} rect.ours {{ fill: #4493f8 }} text.ours {{ fill: #4493f8 }}
}}
</style>
<rect class="b" width="960" height="{height}"/>
<text class="o" x="12" y="20">{title}</text>
{body}
</svg>
"""
