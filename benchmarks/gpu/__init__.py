"""Gradlab on a GPU: `__main__` runs the `parts`, `asking` is how they ask, `table` what comes of it."""
