"""Compare searchers by the epochs they need to find a good grader, on a replayed table of learning curves."""
