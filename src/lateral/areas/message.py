"""What areas say to each other: small, versioned, checked messages of border values; JSON, never pickle.

A message carries a format number, the run, sender and receiver, the border, round and wave, and arrays of shape
(conductors, steps): squared voltage in pu^2 or complex voltage in pu, products of two voltages in pu^2, power in kW and
kvar, prices in the objective's unit per kWh, kvarh, pu^2 or pu; before a relaxation the largest current that is drawn
behind a border, A, and which voltages and currents can occur there (`lateral.areas.occurring`). Nothing else of an area
leaves it.

A message ends with a checksum over all bytes before it, so that a digit that flipped on the way is found. The checksum
is against accidents only: who may speak is a matter of the connection (keys, TLS).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.errors import LateralError
from lateral.network.schema import FloatArray

#: Version of the format; a message of another one is refused.
FORMAT = 1
#: Values at one border by quantity, each of shape (conductors, T).
Values = Mapping[str, FloatArray]
#: How a checksum is written: the last entry of an object.
_SEAL = b',"crc":"%08x"}'
_SEAL_BYTES = len(_SEAL % 0)
#: Largest admittance of the wires of an area to ground, S.
Y_MAX = 1e9
#: Largest current that a neighbour can draw, A; from there on it counts as unlimited.
I_MAX = 1e9
#: Largest entry of a projector, with room for rounding.
SPAN_MAX = 1.0 + 1e-6
#: Largest message that is read, bytes.
MAX_BYTES = 64 * 2**20


class MessageError(LateralError):
    """A message that cannot be understood, or says what cannot be; it is counted as lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """Border values from one area to a neighbour.

    Attributes:
        run: the run it belongs to.
        sender: area.
        receiver: area.
        border: name of the border between them.
        round: round in which it was said, from 1.
        wave: part of the round.
        values: arrays by quantity.
    """

    run: str
    sender: str
    receiver: str
    border: str
    round: int
    wave: int
    values: Values


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a neighbour's value may be.

    Attributes:
        v_min_pu: smallest voltage magnitude.
        v_max_pu: largest voltage magnitude.
        power_max_kw: largest power of one conductor, kW or kvar.
        price_max: largest price of a kWh or kvarh, in the objective's unit; the price of 1 pu^2 (or 1 pu) may be
            ``power_max_kw`` times as large.
    """

    v_min_pu: float = 0.1
    v_max_pu: float = 3.0
    power_max_kw: float = 1e7
    price_max: float = 1e7

    def range_of(self, quantity: str) -> tuple[float, float]:
        """Smallest and largest value of a quantity.

        Raises:
            MessageError: the quantity does not exist.
        """
        match quantity:
            case "v":
                return self.v_min_pu**2, self.v_max_pu**2
            case "vv_re" | "vv_im":
                return -(self.v_max_pu**2), self.v_max_pu**2
            case "v_re" | "v_im":
                return -self.v_max_pu, self.v_max_pu
            case "y_re" | "y_im":
                return -Y_MAX, Y_MAX
            case "i_max":
                return 0.0, I_MAX
            case _ if quantity.startswith("span_"):
                return -SPAN_MAX, SPAN_MAX
            case "p" | "q":
                return -self.power_max_kw, self.power_max_kw
            case "price_p" | "price_q":
                return -self.price_max, self.price_max
            case "price_v" | "price_v_re" | "price_v_im":
                return -self.price_max * self.power_max_kw, self.price_max * self.power_max_kw
        message = f"unknown quantity {quantity!r}"
        raise MessageError(message)


def encode(message: Message) -> bytes:
    """A message as JSON text with a checksum. Numbers keep every bit."""
    body = {
        "format": FORMAT,
        "run": message.run,
        "from": message.sender,
        "to": message.receiver,
        "border": message.border,
        "round": message.round,
        "wave": message.wave,
        "values": plain(message.values),
    }
    return seal(json.dumps(body, separators=(",", ":"), allow_nan=False).encode())


def seal(text: bytes) -> bytes:
    """The text of a JSON object (not an empty one) with the CRC-32 of it as last entry, ``"crc"``."""
    return text[:-1] + _SEAL % zlib.crc32(text)


def unseal(data: bytes) -> bytes:
    """The text that `seal` was given.

    Raises:
        MessageError: there is no checksum, or it does not fit.
    """
    text = data[:-_SEAL_BYTES] + b"}"
    if len(data) <= _SEAL_BYTES or data != seal(text):
        message = "damaged: the checksum is missing or does not fit"
        raise MessageError(message)
    return text


def decode(data: bytes, *, shape: tuple[int, int] | None = None, bounds: Bounds | None = None) -> Message:
    """The message of some bytes.

    Args:
        data: the bytes.
        shape: conductors and steps that every array must have.
        bounds: what values may be; absent: finite.

    Raises:
        MessageError: damaged, no message of this format, a shape that does not fit, or a value out of bounds.
    """
    if len(data) > MAX_BYTES:
        message = f"a message of {len(data)} bytes; at most {MAX_BYTES} are read"
        raise MessageError(message)
    try:
        raw = json.loads(unseal(data))
    except (ValueError, RecursionError) as error:
        message = "not a message: no JSON"
        raise MessageError(message) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        message = f"not a message of format {FORMAT}"
        raise MessageError(message)
    run, sender, receiver, border = (_word(raw, key) for key in ("run", "from", "to", "border"))
    round_, wave = (_count(raw, key) for key in ("round", "wave"))
    values = arrays(raw.get("values"), shape=shape, bounds=bounds)
    return Message(run, sender, receiver, border, round_, wave, values)


def _word(raw: Mapping[str, Any], key: str) -> str:
    found = raw.get(key)
    if not isinstance(found, str):
        message = f"a message whose {key!r} is no word"
        raise MessageError(message)
    return found


def _count(raw: Mapping[str, Any], key: str) -> int:
    found = raw.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        message = f"a message whose {key!r} is no count"
        raise MessageError(message)
    return found


def plain(values: Values) -> dict[str, Any]:
    """Arrays as nested lists."""
    return {name: np.asarray(array, dtype=float).tolist() for name, array in values.items()}


def arrays(raw: Any, *, shape: tuple[int, int] | None = None, bounds: Bounds | None = None) -> dict[str, FloatArray]:
    """Arrays from nested lists, checked.

    Raises:
        MessageError: see `decode`.
    """
    if not isinstance(raw, dict):
        message = "a message without values"
        raise MessageError(message)
    out: dict[str, FloatArray] = {}
    for name, rows in raw.items():
        try:
            array = np.array(rows, dtype=float)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"{name!r} holds what is no number"
            raise MessageError(message) from error
        if array.ndim != 2 or (shape is not None and array.shape != shape):
            message = f"{name!r} has shape {array.shape}, not {shape or '(conductors, steps)'}"
            raise MessageError(message)
        low, high = (bounds or Bounds()).range_of(name)
        if bounds is None:
            low, high = -np.inf, np.inf
        if not np.all(np.isfinite(array)) or np.any(array < low) or np.any(array > high):
            message = f"{name!r} is outside of [{low:g}, {high:g}], or not finite"
            raise MessageError(message)
        array.setflags(write=False)
        out[name] = array
    return out


__all__ = [
    "FORMAT",
    "I_MAX",
    "Bounds",
    "Message",
    "MessageError",
    "Values",
    "arrays",
    "decode",
    "encode",
    "plain",
    "seal",
    "unseal",
]
