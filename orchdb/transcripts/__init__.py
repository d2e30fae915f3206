"""Recorded runs come in: transcripts of Claude Code, Codex and SWE-agent as definitions, agents, prompts and logs."""

from orchdb.transcripts.files import Transcript, find_transcripts
from orchdb.transcripts.importing import Progress, import_transcripts, watch_transcripts
from orchdb.transcripts.report import ImportReport, Tally

__all__ = [
    "ImportReport",
    "Progress",
    "Tally",
    "Transcript",
    "find_transcripts",
    "import_transcripts",
    "watch_transcripts",
]
