"""Everything that a person sees in the terminal: progress, the end of a command, lists, theory, cures. Torch-free.

The only room that prints, but for the commands themselves; it reads finished tables and plans.
"""
