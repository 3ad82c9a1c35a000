"""Benchmarks: models by size, phases, and rivals on the same problem.

    python -m benchmarks list
    python -m benchmarks run --size small --markdown out.md --json out.json

A model is one file in `benchmarks.models`, a rival one file in `benchmarks.rivals`; adding either is adding the file.
"""
