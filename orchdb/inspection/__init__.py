"""What there is in a database, for people who look: what the commands show and a page in a browser can show the same.

Everything here reads, with ``db.conn``.
"""
