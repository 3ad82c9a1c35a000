"""The one intermediate form: labelled blocks, affine arrays, the Program and the ports that devices meet it through."""

from __future__ import annotations

from lateral.program.affine import Affine, stack
from lateral.program.builder import ProgramBuilder
from lateral.program.curves import LEAST_SQ, Banded, Bends, Circle, Curve, OfRoot, Power
from lateral.program.program import (
    Block,
    DataMap,
    Derived,
    DualOf,
    Jumps,
    Opposed,
    Output,
    ProblemClass,
    Program,
    ScaledProgram,
    Slot,
    TreeHint,
)
from lateral.program.rows import CurveRows, ProductRows, QuadraticRows, SemidefiniteRows, upper_triangle

__all__ = [
    "LEAST_SQ",
    "Affine",
    "Banded",
    "Bends",
    "Circle",
    "Block",
    "Curve",
    "CurveRows",
    "DataMap",
    "Derived",
    "DualOf",
    "Jumps",
    "OfRoot",
    "Opposed",
    "Output",
    "Power",
    "ProblemClass",
    "ProductRows",
    "Program",
    "ProgramBuilder",
    "QuadraticRows",
    "ScaledProgram",
    "SemidefiniteRows",
    "Slot",
    "TreeHint",
    "stack",
    "upper_triangle",
]
