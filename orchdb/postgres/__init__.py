"""Postgres: a pool of connections, a queue of inserts that share a commit, and what servers, URLs and sessions ask for."""
