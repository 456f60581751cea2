"""Paths of the repository and of the test helpers, which processes started by a test must be able to import."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).resolve().parent
