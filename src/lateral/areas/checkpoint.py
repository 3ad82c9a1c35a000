"""Checkpoints: a run over areas on disk after each round, so that nothing is lost but the round it was in.

A folder holds three files, all JSON, each text with a checksum (`lateral.areas.message.seal`):

============== =====================================================================================================
file           content
============== =====================================================================================================
run.json       whose run it is: case, areas, algorithm with its options, what each area solves; the run's own word
rounds.jsonl   one line per round: residuals, costs, what receivers hold
state.json     the algorithm's state after the last round: all that is needed to go on
============== =====================================================================================================

``state.json`` is replaced whole, after the line of its round is on disk: whenever the process is killed, the folder
holds a state and every round up to it. Numbers keep every bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from lateral.areas.agent import Task
from lateral.areas.algorithms import Algorithm, State
from lateral.areas.message import MessageError, seal, unseal
from lateral.areas.plan import Plan
from lateral.areas.run import Round
from lateral.errors import CaseError, Fault

#: Version of the files.
FORMAT = 1
ABSENT = "RUN-001 no checkpoint"
DAMAGED = "RUN-002 damaged checkpoint"
ANOTHER = "RUN-003 another run"
UNFINISHED = "RUN-004 unfinished run"
RUN, ROUNDS, STATE = "run.json", "rounds.jsonl", "state.json"


class CheckpointError(CaseError):
    """A checkpoint that cannot be gone on from, or must not be replaced; ``faults`` says why."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A folder that a run is written to.

    Attributes:
        folder: the folder.
        about: whose run it is, see `about`.
        run: the run's own word, which its messages carry.
    """

    folder: Path
    about: Mapping[str, Any]
    run: str

    @classmethod
    def begin(cls, folder: str | Path, about: Mapping[str, Any], run: str) -> Self:
        """Begin a new one; an older one in the folder is replaced if its run had finished.

        Raises:
            CheckpointError: the folder holds a run that has not finished, or something that cannot be read.
        """
        out = cls(Path(folder), about, run)
        if (out.folder / STATE).exists():
            found = _read(out.folder, STATE)
            if found.get("finished") is not True:
                raise _refused(
                    UNFINISHED,
                    out.folder,
                    f"a run that stopped after round {found.get('round')}",
                    "a new folder, or one whose run has finished",
                    "Go on with it (resume), choose another folder, or remove it.",
                )
        out.folder.mkdir(parents=True, exist_ok=True)
        for name in (STATE, ROUNDS):  # in this order: without a state there is no checkpoint
            (out.folder / name).unlink(missing_ok=True)
        _replace(out.folder / RUN, seal(_text({"format": FORMAT, "run": run, "about": about})))
        return out

    @classmethod
    def resume(cls, folder: str | Path, about: Mapping[str, Any], plan: Plan) -> tuple[Self, State, list[Round]]:
        """Go on from one: the state, and the rounds up to it.

        Raises:
            CheckpointError: there is none, it is damaged, or it is another run's.
        """
        place = Path(folder)
        if not (place / STATE).exists():
            raise _refused(ABSENT, place, "no finished round", "a checkpoint", "Begin the run without resume.")
        known = _read(place, RUN)
        _same(place, known.get("about"), about)
        saved = _read(place, STATE)
        if saved.get("run") != known.get("run") or not isinstance(known.get("run"), str):
            raise _damaged(place, STATE, "a state of another run than run.json names")
        try:
            state = State(**_thawed(saved["state"]))
            rounds, size = _rounds(place, state.round)
            _fits(place, plan, state)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise _damaged(place, STATE, str(error)) from error
        with contextlib.suppress(FileNotFoundError), (place / ROUNDS).open("r+b") as file:
            file.truncate(size)  # the line of a round whose state was never written
        return cls(place, about, known["run"]), state, rounds

    def save(self, state: State, done: Round, *, finished: bool) -> None:
        """Write what a round brought; when this returns, it is on disk."""
        with (self.folder / ROUNDS).open("ab") as file:
            file.write(seal(_text(_fields(done))) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        content = {"format": FORMAT, "run": self.run, "round": state.round, "finished": finished}
        _replace(self.folder / STATE, seal(_text({**content, "state": _fields(state)})))


def about(plan: Plan, case_hash: str, algorithm: Algorithm, task: Task) -> dict[str, Any]:
    """Whose run it is: what must be the same to go on with it.

    Tolerance, number of rounds, executor and patience may differ.
    """
    areas = {
        "areas": list(plan.areas),
        "borders": [dataclasses.asdict(b) for b in plan.borders.values()],
        "steps": plan.n_steps,
        "s_kva": plan.s_kva,
        "v_start": plan.v_start,
        "price_start": plan.price_start,
    }
    options = {f.name: getattr(algorithm, f.name) for f in dataclasses.fields(algorithm)}  # type: ignore[arg-type]
    found = {
        "case": plan.name,
        "case_hash": case_hash,
        "plan_hash": hashlib.sha256(_text(areas)).hexdigest()[:16],
        "algorithm": {"name": algorithm.name, **options},
        "task": dataclasses.asdict(task),
    }
    plain: dict[str, Any] = json.loads(_text(found))
    return plain


def _same(place: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """All differences at once.

    Raises:
        CheckpointError: there are some.
    """
    known = found if isinstance(found, dict) else {}
    faults = []
    for key, value in wanted.items():
        if known.get(key) != value:
            faults.append(
                _fault(
                    ANOTHER,
                    place,
                    f"{key} {_short(known.get(key))}",
                    f"{key} {_short(value)}",
                    "Resume with what it was begun with, or begin anew in another folder.",
                )
            )
    if faults:
        raise CheckpointError(faults)


def _rounds(place: Path, n: int) -> tuple[list[Round], int]:
    """The first n rounds of the log, and how many bytes they take."""
    try:
        lines = (place / ROUNDS).read_bytes().split(b"\n")
    except OSError as error:
        raise _damaged(place, ROUNDS, f"it cannot be read: {error.strerror}") from error
    if n < 1:
        raise _damaged(place, STATE, f"a state after round {n}")
    out, size = [], 0
    for k in range(n):
        if k >= len(lines):
            raise _damaged(place, ROUNDS, f"{k} rounds, and a state after round {n}")
        try:
            done = Round(**_thawed(json.loads(unseal(lines[k]))))
        except (MessageError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(place, ROUNDS, f"line {k + 1}: {error}") from error
        if done.number != k + 1:
            raise _damaged(place, ROUNDS, f"round {done.number} in line {k + 1}")
        out.append(done)
        size += len(lines[k]) + 1
    return out, size


def _fits(place: Path, plan: Plan, state: State) -> None:
    """That a state has the borders of the plan, in their shapes.

    Raises:
        CheckpointError: it has not.
    """
    for borders in (state.held, state.start, state.said, state.before, *state.history):
        for name in plan.borders:
            values = borders.get(name, {})
            if not values or any(np.shape(v) != plan.shape(name) for v in values.values()):
                raise _damaged(place, STATE, f"no values, or of a wrong shape, at border {name!r}")


def _read(place: Path, name: str) -> dict[str, Any]:
    try:
        raw = json.loads(unseal((place / name).read_bytes().removesuffix(b"\n")))
    except OSError as error:
        raise _damaged(place, name, f"it cannot be read: {error.strerror}") from error
    except (MessageError, ValueError, RecursionError) as error:
        raise _damaged(place, name, str(error)) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise _damaged(place, name, f"not of format {FORMAT}")
    return raw


def _replace(target: Path, data: bytes) -> None:
    """The file appears whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # never through a link
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _fields(data: Any) -> dict[str, Any]:
    return {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}


def _text(data: Mapping[str, Any]) -> bytes:
    """JSON; numbers keep every bit, arrays also their shape."""
    return json.dumps(data, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "values": value.astype(float).ravel().tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    message = f"{type(value).__name__} cannot be written to a checkpoint"
    raise TypeError(message)


def _thawed(value: Any) -> Any:
    """Arrays and tuples of what `_text` wrote."""
    if isinstance(value, dict):
        if set(value) == {"shape", "values"} and isinstance(value["shape"], list):
            return np.array(value["values"], dtype=float).reshape(value["shape"])
        return {key: _thawed(v) for key, v in value.items()}
    return tuple(_thawed(v) for v in value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _fault(code: str, place: Path, found: str, allowed: str, action: str) -> Fault:
    return Fault(code, f"checkpoint.{place.name}", found, allowed, action)


def _refused(code: str, place: Path, found: str, allowed: str, action: str) -> CheckpointError:
    return CheckpointError([_fault(code, place, found, allowed, action)])


def _damaged(place: Path, name: str, found: str) -> CheckpointError:
    return _refused(
        DAMAGED,
        place,
        f"{name}: {found[:200]}",
        "a file as it was written",
        "Take a copy of the folder that is whole, or begin anew in another folder.",
    )


__all__ = ["Checkpoint", "CheckpointError", "about"]
