"""Models: one file per kind, each with ``MODELS``."""
