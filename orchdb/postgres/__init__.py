"""Postgres: a pool of connections, a queue of inserts that share a commit, and what servers and URLs ask for."""
