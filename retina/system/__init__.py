"""The machine, its processes and files, and text of others on a terminal. Knows nothing of photographs."""
