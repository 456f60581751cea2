"""Numbers from predictions: grades, intervals by patient, calibration, an operating point, baselines, the verdict."""
