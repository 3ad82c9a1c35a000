"""The one intermediate form: labelled blocks, affine arrays, the Program and the ports that devices meet it through."""

from __future__ import annotations

from lateral.program.affine import Affine, stack
from lateral.program.builder import ProgramBuilder
from lateral.program.program import (
    Block,
    DataMap,
    Output,
    ProblemClass,
    ProductRows,
    Program,
    ScaledProgram,
    Slot,
    TreeHint,
)

__all__ = [
    "Affine",
    "Block",
    "DataMap",
    "Output",
    "ProblemClass",
    "ProductRows",
    "Program",
    "ProgramBuilder",
    "ScaledProgram",
    "Slot",
    "TreeHint",
    "stack",
]
