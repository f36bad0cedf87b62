"""The verbs of the command line, one file each: what is asked is looked at, and the rooms below are told.

What a verb needs of them is imported inside its function: no verb waits for what another one does.
"""
