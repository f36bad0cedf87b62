"""Which change cures a sick run: rounds of remedies as one sweep, ranked by what they change and what they gain.

`remedies` are what can be changed, `trials` what is tried, `ranking` what came of it, `words` how it is told.
Torch-free; reads and writes plain data. May import grids, the store, verdicts and theory; no terminal, no launcher.
"""
