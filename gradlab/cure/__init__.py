"""Which change cures a sick run: rounds of remedies as one sweep, ranked by what they change and what they gain.

`trials` says what is tried, `ranking` what came of it; both are torch-free and read and write plain data alone.
"""
