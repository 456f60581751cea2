"""The machine, its processes and files, and the safe display of external text. Knows nothing of photographs."""
