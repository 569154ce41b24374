"""Kernels for the GPU lane, the naive way beside the fast one. Each file stands alone: a technique copies it.

A function of these files is called alike everywhere. On a GPU it runs Triton; on a CPU, and for shapes that its kernel
does not take, it runs the naive way, which stands beside it as `naive_...`: plain torch, what the tests compare with.
"""
