"""Clippers and optimizer steps on the flat parameters (M, P) of a cohort."""
