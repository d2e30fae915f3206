"""SQLite: one connection that writes behind a queue, a few that read, and what there is to know of files."""
