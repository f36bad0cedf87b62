"""How a step is done fast: on a CPU by kernels in C, compiled once for the machine at hand; on a GPU as a CUDA graph.

Every kernel has an equal in torch, which is what runs where there is no compiler.
"""
