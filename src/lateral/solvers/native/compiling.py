"""How kernels are compiled by Numba: cached, other threads may run meanwhile, and without what nobody calls.

A first call compiles some fifty kernels, and a user waits for it: none has the wrapper for C (1 to 2 s of 15 in all),
and what only other kernels call has none for Python either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

Decorator = Callable[[Any], Any]

_compiled = partial(numba.njit, nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
_SUMS = {"contract", "arcp", "nsz", "reassoc"}
#: Sums may be reordered and contracted; NaN and infinity keep their meaning.
compiled: Decorator = _compiled(fastmath=_SUMS)
#: The same of what only kernels call.
inner: Decorator = _compiled(fastmath=_SUMS, no_cpython_wrapper=True)
#: The same where a NaN is seen elsewhere: only so a largest number is looked for in lanes.
of_numbers: Decorator = _compiled(fastmath={"nnan", "nsz", "reassoc"})
inner_of_numbers: Decorator = _compiled(fastmath={"nnan", "nsz", "reassoc"}, no_cpython_wrapper=True)
#: Of indices: as they are written.
counted: Decorator = _compiled()
inner_counted: Decorator = _compiled(no_cpython_wrapper=True)

__all__ = ["compiled", "counted", "inner", "inner_counted", "inner_of_numbers", "of_numbers"]
