"""Data that can leave: whole databases, from any engine to any other."""

from orchdb.transfer.copying import compare_databases, copy_database
from orchdb.transfer.report import TableReport, TransferProgress, TransferReport

__all__ = ["TableReport", "TransferProgress", "TransferReport", "compare_databases", "copy_database"]
