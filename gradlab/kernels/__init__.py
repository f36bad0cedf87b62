"""What a step on a CPU spends its time in, written in C and compiled once for the machine at hand.

Everything here has an equal in torch, which is what runs where there is no compiler, and on every other device.
"""
