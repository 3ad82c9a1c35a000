"""A figure as a file."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lateral.errors import OptionError

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Nothing that leads to a server: a report is a private document.
CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""}
#: What a figure can be written as.
SUFFIXES = (".html", ".png", ".svg")


def save(figure: go.Figure, path: Path | str) -> Path:
    """Write a figure to a file, by its suffix: ``.html`` (one file, works offline), ``.png`` or ``.svg``.

    Pictures are drawn by kaleido (``pip install 'lateral[png]'``) in a Chrome or Chromium that is installed. It is
    found on the path under its usual names; one elsewhere is named by the environment variable ``BROWSER_PATH``.

    Raises:
        OptionError: another suffix, or a picture without the package that draws it; the message says what to install.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        message = f"a figure cannot be written as {suffix or 'a file without suffix'}; known: {', '.join(SUFFIXES)}"
        raise OptionError(message)
    if suffix == ".html":
        text = figure.to_html(include_plotlyjs=True, full_html=True, config=CONFIG)
        return write_whole(target, text.encode())
    if importlib.util.find_spec("kaleido") is None:
        message = f"writing {suffix} needs kaleido: pip install 'lateral[png]', or write .html"
        raise OptionError(message)
    try:
        picture = figure.to_image(format=suffix[1:], scale=2)
    except (ValueError, RuntimeError, OSError) as error:
        # kaleido says several sentences, some of them in a tuple
        parts = [str(p) for a in error.args for p in (a if isinstance(a, tuple) else (a,))]
        message = (
            "the picture could not be drawn: kaleido needs Chrome or Chromium, on the path or named by the environment "
            f"variable BROWSER_PATH; or write .html. It says: {' '.join(' '.join(parts).split())[:300]}"
        )
        raise OptionError(message) from error
    return write_whole(target, picture)


def write_whole(target: Path, content: bytes) -> Path:
    """Write a file whole or not at all: under another name in the same folder, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files that only the owner reads; a report is like any other file
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


__all__ = ["SUFFIXES", "save", "write_whole"]
