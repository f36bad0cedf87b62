"""Faulty networks, each with a repaired twin, by which the verdicts on any module are scored."""
