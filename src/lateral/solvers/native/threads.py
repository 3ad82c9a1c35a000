"""Work shared by threads: by chunks of steps or by rows; compiled kernels let other threads run."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from lateral.solvers.native.lanes import WIDTH

#: Unknowns, of all steps, for which another thread is worth asking: that takes 0.05 ms, thirty times an iteration.
LEAST = 400_000


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


class _Other:
    """A thread that waits to be asked; it ends with what asks. A pool's futures take three times as long."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[int, Callable[[int], Any], int] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=_work, args=(self._asked, self._answers), daemon=True).start()
        weakref.finalize(self, self._asked.put, None)
        self._ticket = 0

    def ask(self, own: Callable[[int], Any], k: int) -> None:
        """Begin ``own(k)``."""
        self._ticket += 1
        self._asked.put((self._ticket, own, k))

    def answer(self) -> tuple[Any, BaseException | None]:
        """What it returned, or what it raised."""
        while True:
            ticket, value, error = self._answers.get()
            if ticket == self._ticket:  # else of a question whose answer an interrupt kept from being heard
                return value, error


def _work(
    asked: SimpleQueue[tuple[int, Callable[[int], Any], int] | None],
    answers: SimpleQueue[tuple[int, Any, BaseException | None]],
) -> None:
    while (job := asked.get()) is not None:
        ticket, own, k = job
        try:
            found: tuple[Any, BaseException | None] = own(k), None
        except BaseException as error:
            found = None, error
        answers.put((ticket, *found))
        del job, own, found  # what they hold ends with who asked


class Threads:
    """Some threads, at most one for each chunk of steps; the one that calls is one of them.

    Args:
        n: how many at most; no more than have `LEAST` numbers each.
        n_steps: number of steps T.
        n_unknowns: unknowns of a step.
    """

    def __init__(self, n: int, n_steps: int, n_unknowns: int) -> None:
        self.n_chunks = -(-n_steps // WIDTH)
        worth = max(1, n_steps * n_unknowns // LEAST)
        self._chunks = _parts(self.n_chunks, min(n, self.n_chunks, worth))
        self._others = [_Other() for _ in range(len(self) - 1)]

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
        asked: list[_Other] = []
        try:
            for k, other in enumerate(self._others, 1):
                other.ask(own, k)
                asked.append(other)
            mine = own(0)
        finally:  # none is left at work on arrays that somebody else uses next
            found = [other.answer() for other in asked]
        for _, error in found:
            if error is not None:
                raise error
        return [mine, *(value for value, _ in found)]


def _parts(n: int, k: int) -> list[tuple[int, int]]:
    """k ranges of about the same length."""
    return list(itertools.pairwise([n * i // k for i in range(k + 1)]))


__all__ = ["Share", "Threads"]
