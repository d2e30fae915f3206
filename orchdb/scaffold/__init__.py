"""The files that a bootstrapped project carries instead of a copy of the code. It needs the extra ``scaffold``."""

from __future__ import annotations

from orchdb.scaffold.service import TEMPLATES, Outcome, Plan, PlannedFile, ScaffoldService

__all__ = ["TEMPLATES", "Outcome", "Plan", "PlannedFile", "ScaffoldService"]
