"""The pixel cache: each photograph is decoded once, also across interrupted builds, and memory-mapped afterwards."""
