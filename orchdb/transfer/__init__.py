"""Data that can leave: whole databases, from any engine to any other."""

from orchdb.transfer.backups import Restored, back_up_database, restore_database
from orchdb.transfer.copying import compare_databases, copy_database
from orchdb.transfer.report import TableReport, TransferProgress, TransferReport

__all__ = [
    "Restored",
    "TableReport",
    "TransferProgress",
    "TransferReport",
    "back_up_database",
    "compare_databases",
    "copy_database",
    "restore_database",
]
