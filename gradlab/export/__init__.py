"""A result handed to another program: one file a target, each asked for its package only when it is chosen. Torch-free.

May import the store, verdicts and the report's tables. What is handed over is the same for all of them: `contents.py`.
"""
