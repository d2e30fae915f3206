"""SWE-agent's trajectories."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from orchdb import DatabaseManager
from orchdb.transcripts import import_transcripts
from tests.support.transcripts import totals


def trajectory(steps: int, cost: float = 0.5) -> dict[str, Any]:
    """A run of so many steps."""
    return {
        "environment": "swe_main",
        "trajectory": [
            {
                "action": f"ls {number}\n",
                "observation": f"files {number}",
                "response": f"Let me look {number}",
                "thought": "",
                "execution_time": 0.1,
            }
            for number in range(steps)
        ],
        "history": [
            {"role": "system", "content": "You are a programmer."},
            {"role": "user", "content": "Fix it."},
            {"role": "assistant", "content": "Let me look 0"},
        ],
        "info": {
            "exit_status": "submitted",
            "submission": "diff",
            "model_stats": {
                "instance_cost": cost,
                "tokens_sent": 1000 * steps,
                "tokens_received": 10,
                "api_calls": steps,
            },
        },
    }


def saved(path: Path, document: dict[str, Any]) -> Path:
    """Write a trajectory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


async def test_each_step_is_a_prompt_and_the_cost_that_is_reported_counts(db: DatabaseManager, tmp_path: Path) -> None:
    path = saved(tmp_path / "run" / "task-1.traj", trajectory(3))
    report = await import_transcripts(db, [path])
    prompts = await db.list_prompts()
    assert [(row["prompt_text"], row["response_text"]) for row in prompts] == [
        ("You are a programmer.\n\nFix it.", "Let me look 0"),
        ("files 0", "Let me look 1"),
        ("files 1", "Let me look 2"),
    ]
    assert await totals(db) == (3, 3000, 10, 0, 0, 0.5)
    assert [(row["metadata"] or {}).get("covers") for row in prompts] == ["run", None, None]
    [agent] = await db.list_agents()
    assert agent["cost_usd"] == 0.5
    assert (agent["metadata"] or {})["exit_status"] == "submitted"
    assert [line["message"] for line in await db.get_agent_logs(agent["id"], log_type="tool_call")] == [
        f"ls: ls {number}\n" for number in range(3)
    ]
    assert report.unpriced == 0


async def test_a_run_that_goes_on_and_a_copy_of_it_count_once(db: DatabaseManager, tmp_path: Path) -> None:
    path = saved(tmp_path / "run" / "task-1.traj", trajectory(2, 0.25))
    await import_transcripts(db, [path])
    saved(path, trajectory(4, 0.75))
    os.utime(path, (1_800_000_000, 1_800_000_000))
    report = await import_transcripts(db, [path])
    assert report.prompts == 2
    assert await totals(db) == (4, 4000, 10, 0, 0, 0.75)
    shutil.copytree(path.parent, tmp_path / "copies" / "run")
    assert (await import_transcripts(db, [tmp_path / "copies"])).prompts == 0
    assert await totals(db) == (4, 4000, 10, 0, 0, 0.75)
    again = await import_transcripts(db, [tmp_path])
    assert again.files_read == 0


async def test_what_is_no_trajectory_is_named(db: DatabaseManager, tmp_path: Path) -> None:
    (tmp_path / "broken.traj").write_text("{")
    saved(tmp_path / "strange.traj", {"trajectory": [1, {"action": 5}], "info": [], "history": {}})
    report = await import_transcripts(db, [tmp_path])
    assert report.damaged == 1
    assert "broken.traj" in report.findings[0]
