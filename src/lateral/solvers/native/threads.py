"""Work shared by threads: by chunks of steps or by rows; compiled kernels let other threads run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lateral.solvers.native.lanes import WIDTH


class Share:
    """What one of n threads does: a range of whatever there is, as rows are next to one another in memory.

    Args:
        k, n: number of the thread, and of threads.
    """

    def __init__(self, k: int, n: int) -> None:
        self.k, self.n = k, n

    def of(self, size: int) -> tuple[int, int]:
        """First, and one after the last."""
        return self.between(0, size)

    def between(self, first: int, last: int) -> tuple[int, int]:
        """The same of a range."""
        size = last - first
        return first + size * self.k // self.n, first + size * (self.k + 1) // self.n


class Threads:
    """Some threads, at most one for each chunk of steps; the one that calls is one of them.

    Args:
        n: how many.
        n_steps: number of steps T.
    """

    def __init__(self, n: int, n_steps: int) -> None:
        self.n_chunks = -(-n_steps // WIDTH)
        self._chunks = _parts(self.n_chunks, min(n, self.n_chunks))
        self._pool = ThreadPoolExecutor(len(self) - 1) if len(self) > 1 else None

    def __len__(self) -> int:
        return len(self._chunks)

    def chunks(self, kernel: Callable[..., Any], *arrays: Any) -> list[Any]:
        """A kernel on all chunks; a list of arrays has one for each thread."""
        return self._run(kernel, arrays, self._chunks)

    def each(self, own: Callable[[int, int], Any]) -> None:
        """Chunk by chunk: what is given the number of the thread and the chunk."""
        self._all(lambda k: [own(k, c) for c in range(*self._chunks[k])])

    def shares(self, own: Callable[[Share], Any]) -> list[Any]:
        """What is given a thread's share; what it returned by thread."""
        return self._all(lambda k: own(Share(k, len(self))))

    def rows(self, kernel: Callable[..., Any], n: int, *arrays: Any) -> list[Any]:
        """A kernel on n rows."""
        return self.shares(lambda share: kernel(*arrays, *share.of(n)))

    def some(self, kernel: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """A kernel with each of some arguments; what it returned for each. Where the arguments do not depend on the
        number of threads, sums over what it returned do not either, to the last bit."""
        if len(jobs) == 1:  # to ask another thread takes 0.1 ms
            return [kernel(*jobs[0])]
        found: list[Any] = [None] * len(jobs)
        for k, mine in enumerate(self._all(lambda k: [kernel(*job) for job in jobs[k :: len(self)]])):
            found[k :: len(self)] = mine
        return found

    def _run(self, kernel: Callable[..., Any], arrays: tuple[Any, ...], parts: list[tuple[int, int]]) -> list[Any]:
        def own(k: int) -> Any:
            return kernel(*(a[k] if isinstance(a, list) else a for a in arrays), *parts[k])

        return self._all(own)

    def _all(self, own: Callable[[int], Any]) -> list[Any]:
        """What each thread has to do, by its number; the first is done here."""
        waiting = [] if self._pool is None else [self._pool.submit(own, k) for k in range(1, len(self))]
        return [own(0), *(part.result() for part in waiting)]


def _parts(n: int, k: int) -> list[tuple[int, int]]:
    """k ranges of about the same length."""
    return list(itertools.pairwise([n * i // k for i in range(k + 1)]))


__all__ = ["Share", "Threads"]
