"""The tests. With ``ORCHDB_TEST_LOOP=uvloop`` every event loop is uvloop's, that of a child process too."""

from __future__ import annotations

import asyncio
import os

if os.environ.get("ORCHDB_TEST_LOOP") == "uvloop":
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
