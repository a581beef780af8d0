"""Measure: scores, intervals, baselines, confidence, judges, errors, the report."""
