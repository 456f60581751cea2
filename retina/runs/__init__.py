"""Training runs in this process, without Ray: one, or the report's comparison of with and without pretraining."""
