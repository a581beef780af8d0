"""Measure: scores, intervals, planning, baselines, confidence, judges, errors, the report."""
