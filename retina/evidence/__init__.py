"""What a model's numbers are worth: intervals by patient, baselines beside them, calibration, an operating point."""
