"""Presentation of a results folder: terminal output, figures and report.html. Reads results and trains nothing."""
