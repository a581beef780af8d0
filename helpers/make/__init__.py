"""Make training rows: recipes for a teacher, and rows that need none."""
