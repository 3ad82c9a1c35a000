"""A case as a folder: ``case.toml``, one table per element class, and ``profiles``.

::

    mycase/
      case.toml         name, base, horizon
      buses.csv         one row per bus; the columns are the fields of the class, an `area` beside them
      lines.csv         matrices as "r11; r21 r22" (lower triangle) or "r11 r12; r21 r22" (all of it)
      transformers.csv  with their windings in windings.csv
      admittances.csv   with their terminals in admittance_terminals.csv
      loads.csv, batteries.csv, ...
      profiles.csv      a `time` column with an offset, then one column per profile

A table is CSV or Parquet. An empty cell is the field's default; a column may be left out when every row has
the default. Reading is strict (a misspelt column is a fault, not a default), reports every fault at once
with file and line, and never opens a file outside the folder. What `write_folder` writes, `read_folder`
reads back to the same hash.

Codes: TAB-001 to 009 the folder and case.toml, 010 to 029 tables, 030 to 039 profiles, 040 to 049 writing.
"""

from lateral.io.tables.layout import CaseFile, HorizonFile
from lateral.io.tables.read import read_elements, read_folder, read_profiles
from lateral.io.tables.write import write_folder

__all__ = ["CaseFile", "HorizonFile", "read_elements", "read_folder", "read_profiles", "write_folder"]
