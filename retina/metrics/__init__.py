"""Metrics of predictions: grading, calibration, operating point, baselines, intervals by patient and the verdict."""
