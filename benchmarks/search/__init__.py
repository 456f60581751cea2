"""Which search finds a good grader with the fewest epochs: a table of learning curves, replayed."""
