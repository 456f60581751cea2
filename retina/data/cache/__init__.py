"""The pixel cache: each photograph is decoded once, whatever stops it, and memory-mapped afterwards."""
