"""Recovery: one concern a file, run by every worker, one at a time under a database lock."""
