"""Retina sweeps: find the best diabetic-retinopathy grader that your photographs and GPU-hours can buy."""

__version__ = "0.1.0"
