"""Text that others wrote, as each medium shows it: errors, names of files, classes and runs, words
that were typed. None of it is markup, and none steers a terminal."""

import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Control characters and escape codes, invisible signs that turn a line around, halves of
# characters (a file name that is not UTF-8), separators of lines and paragraphs.
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Lines and tabs; the joiners, without which Persian, Hindi and many emoji are spelt wrongly.
KEPT = "\n\t\u200c\u200d"
# What a spreadsheet calculates, in the wide forms of East Asian keyboards too.
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
# An underscore within a word, as in pvt_small, is no markup.
MARKDOWN = re.compile(r"[\\`*\[\]<>|&#~$]|(?<!\w)_|_(?!\w)")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
# What makes a list or a rule of a line that begins with it.
BLOCK = re.compile(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=[-+](?:\s|-*$)))")
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
# After the end of a row these would be an option of it.
OPTION = re.compile(r"^[\[*]")


def visible(text: str) -> str:
    """Text for a terminal, a page or a store: signs that are not seen appear as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(_seen(sign) for sign in text)


def one_line(text: str) -> str:
    """Text for a comment or a label: visible, on one line."""
    return " ".join(visible(text).split())


def markdown(text: str) -> str:
    """Text that Markdown, and a table's cell, shows as it is."""
    escaped = MARKDOWN.sub(lambda sign: ENTITIES.get(sign[0], f"\\{sign[0]}"), one_line(text))
    return BLOCK.sub(r"\1\\", escaped)


def markdown_code(text: str) -> str:
    """Text as code in a line of Markdown, whatever backticks it has."""
    code = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    # A backtick at an end would lengthen the fence.
    space = " " if "`" in (code[:1], code[-1:]) else ""
    return f"{fence}{space}{code}{space}{fence}"


def markdown_block(text: str) -> str:
    """Lines as a block of code in Markdown, whatever backticks they have."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{visible(text)}\n{fence}"


def latex(text: str) -> str:
    """Text that LaTeX prints as it is, also as the first of a row."""
    escaped = "".join(LATEX.get(sign, sign) for sign in one_line(text))
    return OPTION.sub(r"{\g<0>}", escaped)


def csv_cell(text: str) -> str:
    """Text of a CSV file: with an apostrophe in front where a spreadsheet would calculate it."""
    shown = visible(text)
    return f"'{shown}" if FORMULA.match(shown) and not _is_number(shown) else shown


def from_csv_cell(cell: str) -> str:
    """The text that `csv_cell` wrote, or that stands there without it, visible."""
    text = visible(cell)
    return text[1:] if text.startswith("'") and csv_cell(text[1:]) == text else text


def to_csv(frame: "pd.DataFrame", index: bool = False, float_format: str | None = None) -> str:
    """A table as CSV that a spreadsheet can open: its texts, headings too, are `csv_cell`s."""
    cells = frame.map(_csv).rename(columns=_csv)
    cells = cells.rename(index=_csv) if index else cells
    return cells.to_csv(index=index, float_format=float_format)


def _seen(sign: str) -> str:
    if sign in KEPT or unicodedata.category(sign) not in UNSEEN:
        return sign
    return sign.encode("unicode_escape").decode()


def _csv(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
