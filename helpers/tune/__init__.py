"""Tune a model: training rows, the trainer, students of a study."""
