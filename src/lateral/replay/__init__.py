"""Replay: a dispatch run step by step in OpenDSS, and compared with what was predicted."""

from __future__ import annotations

from lateral.io.dispatch import Dispatch
from lateral.replay.replay import Errors, Prediction, Replay, replay

__all__ = ["Dispatch", "Errors", "Prediction", "Replay", "replay"]
