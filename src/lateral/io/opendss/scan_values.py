"""The values of a statement: variables put in, whether the engine has room for them, and how each is written anew."""

from __future__ import annotations

import re

from lateral.io.opendss.scan_files import CaseFiles
from lateral.io.opendss.scan_record import Limits, Record, suggest
from lateral.io.opendss.scan_tokens import BARE, CLOSE, OPEN, PARENTHESES, PLAIN_WORD, VARIABLE, Param, quote, tokenise
from lateral.io.opendss.scan_words import BUSES, SHAPE_CLASSES, SIZES

_PART = re.compile(r"""[^\s.,|"'()\[\]{}]+""")


class Values:
    """Checks values and quotes them; files that they name are taken along."""

    def __init__(self, limits: Limits, record: Record, files: CaseFiles) -> None:
        self.limits = limits
        self.record = record
        self.files = files

    def arguments(self, params: list[Param], element: str, line: str) -> str | None:
        """The arguments of a command; None, with a fault, when one will not do."""
        texts = []
        for name, value, kind in params:
            text = self.value(value, kind, element, line) if self.fits("bus", value, element) else None
            if text is None:
                return None
            texts.append(f"{quote(name)}={text}" if name else text)
        return " ".join(texts)

    def fits(self, full: str, value: str, element: str) -> bool:
        """Whether the engine has room for what the value asks for: it allocates, or copies, without looking."""
        if full in BUSES:
            # Inside quotes blanks part nodes just as points do; in a list of plain names each stands by itself.
            plain = full == "buses" and not any(quoted in value for quoted in OPEN if quoted)
            count = max((len(_PART.findall(v)) for v in (re.split(r"[\s,|]+", value) if plain else [value])), default=0)
            limit, what = self.limits.nodes, "nodes of one bus"
        elif full in SIZES or full == "npts":
            limit, what = self.limits.points if full == "npts" else self.limits.size, "a plain number"
            number = re.fullmatch(r"\s*([+-]?\d{1,12})(?:\.0*)?\s*", value)
            count = int(number[1]) if number else limit + 1
        else:
            return True
        if count <= limit:
            return True
        self.record.fault(
            "SEC-008 limit", element, value, f"{what}, at most {limit}", "Correct the value, or raise the limit."
        )
        return False

    def action(self, cls: str, value: str, element: str) -> bool:
        """Whether the value of an ``action`` may be passed on."""
        if cls in SHAPE_CLASSES and not value.lower().startswith("n"):
            self.record.fault(
                "SEC-011 forbidden-action",
                element,
                f"action={value}",
                "action=normalize",
                "It writes a file: take it out.",
            )
            return False
        if cls in ("monitor", "energymeter"):
            self.record.skip(f"{element} action={value}", "an action of a meter is output")
            return False
        return True

    def value(self, value: str, kind: int, element: str, line: str) -> str | None:
        """A value, quoted as it was; file references inside are staged and rewritten."""
        if kind == BARE:
            return quote(value)
        if "=" not in value:
            return f"{OPEN[kind]}{value}{CLOSE[kind]}" if CLOSE[kind] not in value else quote(value)
        inner = tokenise(value)
        texts = []
        for index, (name, text, _) in enumerate(inner):
            low = name.lower()
            reader = "file" if low == "file" else "dblfile" if low.startswith("d") else "sngfile"
            if index == 0 and (low == "file" or _is_short(low, "dblfile") or _is_short(low, "sngfile")):
                staged = self.files.stage(text, element)
                if staged is None:
                    return None
                texts.append(f"{reader}={staged}")
            elif index > 0 and (_is_short(low, "column") or _is_short(low, "header")):
                texts.append(f"{'column' if low[0] == 'c' else 'header'}={quote(text)}")
            else:
                texts = []
                break
        if not texts:
            self.record.fault(
                "DSS-011 odd-value",
                element,
                line,
                "a list of values, or (file=...), (dblfile=...), (sngfile=...)",
                "Write the values without '='.",
            )
            return None
        return f"({', '.join(texts)})"


def _is_short(text: str, full: str) -> bool:
    """The engine's comparison over the shorter of two names (``CompareTextShortest``)."""
    return bool(text) and (full.startswith(text) or text.startswith(full))


class Variables:
    """The variables of a script, ``@name``: set by ``var``, put in by us."""

    def __init__(self, limits: Limits, record: Record) -> None:
        self.limits = limits
        self.record = record
        self.known: dict[str, str] = {}
        self.expanded = 0

    def substitute(self, params: list[Param]) -> list[Param]:
        """Put the values of ``@variables`` in; nothing is left for the engine to substitute.

        A bare token that changed may now hold blanks or delimiters: it is kept together by parentheses.
        """
        changed: list[Param] = []
        for name, value, kind in params:
            text = self._expand(value)
            odd = text != value and kind == BARE and PLAIN_WORD.fullmatch(text) is None
            changed.append((name, text, PARENTHESES if odd else kind))
        return changed

    def _expand(self, value: str) -> str:
        def replace(found: re.Match[str]) -> str:
            known = self.known.get(found[0].lower())
            if known is None:
                self.record.fault(
                    "DSS-009 unknown-variable",
                    f"variable {found[0]}",
                    found[0],
                    "a variable set before with var",
                    suggest(found[0], list(self.known)),
                )
                return "0"
            self.expanded += len(known)
            self.record.bound(self.expanded, self.limits.expanded, "characters put in by variables")
            return known

        return VARIABLE.sub(replace, value) if "@" in value else value

    def assign(self, line: str) -> None:
        """The variables of a ``var`` statement."""
        for name, value, _ in tokenise(line)[1:]:
            if name.startswith("@"):
                self.known[name.lower()] = self._expand(value)
                self.record.bound(len(self.known), self.limits.statements, "variables")
            else:
                self.record.skip(line, "'var' without a value is output")
                return
