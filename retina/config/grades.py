"""The grading scale."""

GRADES = 5
GRADE_NAMES = ("none", "mild", "moderate", "severe", "proliferative")
"""The five grades of the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003), 0 to 4."""

UNGRADABLE = "ungradable"
"""The value in `DataConfig.grade_mapping` for labels of photographs that graders could not grade."""
