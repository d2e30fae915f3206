"""What a process runs on."""

from __future__ import annotations

import asyncio
import json
import sys


async def _loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def described() -> dict[str, object]:
    """The event loop of the process, and how strict its Python is."""
    return {"loop": asyncio.run(_loop()), "dev_mode": sys.flags.dev_mode, "warnings": sys.warnoptions}


if __name__ == "__main__":
    print(json.dumps(described()))
