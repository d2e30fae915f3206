"""What is stored: the tables, what a value may be on both engines, and the revisions that lead here."""
