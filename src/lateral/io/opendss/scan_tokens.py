"""A line of an OpenDSS file as tokens, cut exactly as the engine cuts it, and one token as text again.

The rules are those of ``ParserDel.pas`` of the DSS C-API 0.14.5: five ways of quoting, ``name=value``, commas, blanks,
comments.
"""

from __future__ import annotations

import re

# One token: quoted in one of five ways (an open quote runs to the end of the line), or bare up to a
# delimiter, a blank or a comment.
_TOKEN = re.compile(
    r""" "([^"]*+)"? | '([^']*+)'? | \(([^)]*+)\)? | \[([^\]]*+)\]? | \{([^}]*+)\}? | ((?:[^ \t,=!/]|/(?!/))*+) """,
    re.VERBOSE,
)
BARE = 6
PARENTHESES = 3
OPEN = ("", '"', "'", "(", "[", "{", "")
CLOSE = ("", '"', "'", ")", "]", "}", "")
# The usual `name=value`, in one step; anything unusual after it sends the text to the slow path.
_PAIR = re.compile(
    r"""([^ \t,=!/"'(\[{]++)[ \t]*+=[ \t]*+(?:
        ([^ \t,=!/"'(\[{][^ \t,=!/]*+)[ \t]*+(?:,[ \t]*+)?+(?![=!/])
      | (?:"([^"]++)"|'([^']++)'|\(([^)]++)\)|\[([^\]]++)\]|\{([^}]++)\}),?+(?!=)[ \t]*+
    )""",
    re.VERBOSE,
)
_PAIR_QUOTE = {3: 1, 4: 2, 5: 3, 6: 4, 7: 5}
_BLANKS = re.compile(r"[ \t]*")
PLAIN_WORD = re.compile(r"""[^\s,=!/@"'(\[{][^\s,=!/]*""")
VARIABLE = re.compile(r"(?:(?<=[\s,|])|^)@[^\s,=|.^]+")

# (name or "", value, index of the quote kind)
Param = tuple[str, str, int]


class UnquotableError(Exception):
    """A text holds the end of every kind of quote."""


def blanks(text: str, pos: int) -> int:
    """The place after the blanks at ``pos``."""
    found = _BLANKS.match(text, pos)
    return found.end() if found else pos


def _read_token(text: str, pos: int, delimiter: str) -> tuple[str, int, int, str]:
    """One token at ``pos``: value, quote kind, next position, what ended it (``TDSSParser.GetToken``)."""
    found = _TOKEN.match(text, pos)
    if found is None or found.lastindex is None:
        return "", BARE, len(text), delimiter
    kind = found.lastindex
    value, pos = found[kind], found.end()
    if kind == BARE and pos < len(text):
        delimiter = text[pos] if text[pos] in ",=" else " " if text[pos] in " \t" else "!"
        if delimiter == "!":
            return value, kind, len(text), delimiter
    if delimiter == " ":
        pos = blanks(text, pos)
    if pos < len(text) and text[pos] in ",=":
        delimiter = text[pos]
        pos += 1
    return value, kind, blanks(text, pos), delimiter


def tokenise(text: str, pos: int = 0) -> list[Param]:
    """The parameters of a statement, as the engine's edit loop sees them: it stops at an empty value."""
    params: list[Param] = []
    pos = blanks(text, pos)
    end = len(text)
    match = _PAIR.match
    while pos < end:
        pair = match(text, pos)
        if pair is not None:
            index = pair.lastindex or 0
            params.append((pair[1], pair[index], _PAIR_QUOTE.get(index, BARE)))
            pos = pair.end()
            continue
        value, kind, pos, delimiter = _read_token(text, pos, " ")
        name = ""
        if delimiter == "=":
            name = value
            value, kind, pos, _ = _read_token(text, pos, "=")
        if not value:
            break
        params.append((name, value, kind))
    return params


def quote(text: str) -> str:
    """``text`` as one token of a statement, whatever it contains."""
    if PLAIN_WORD.fullmatch(text):
        return text
    for kind in (1, 2, 4, 3, 5):
        if CLOSE[kind] not in text:
            return f"{OPEN[kind]}{text}{CLOSE[kind]}"
    raise UnquotableError
