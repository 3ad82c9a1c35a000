"""Results on disk: NetCDF for everything, Parquet or CSV for the long table; never pickle."""

from __future__ import annotations

import os
from pathlib import Path

from lateral.errors import OptionError, did_you_mean
from lateral.results.result import Result

SUFFIXES = (".nc", ".parquet", ".csv")


def save(result: Result, path: str | Path) -> Path:
    """Write a result, by the suffix of the path: ``.nc`` (xarray), ``.parquet`` or ``.csv`` (the long table).

    The file appears whole or not at all.

    Raises:
        OptionError: another suffix.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        message = f"results are written as {', '.join(SUFFIXES)}, not {target.suffix!r}. " + did_you_mean(
            target.suffix, SUFFIXES
        )
        raise OptionError(message)
    draft = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        match target.suffix:
            case ".nc":
                result.dataset.to_netcdf(draft, engine="h5netcdf")
            case ".parquet":
                result.to_pandas().to_parquet(draft, index=False)
            case _:
                result.to_pandas().to_csv(draft, index=False)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


__all__ = ["save"]
