"""The pages of the repository: their links, and the commands that they say to type."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Written by code of before, and kept as they were.
KEPT = "tests/records/before/"

PROGRAMS = r"(?:python3?|pip|mlflow|pytest|pvt-bench|source|export|git|cd|docker|sbatch|curl)"
BEGINNING = re.compile(rf"(?:\w+=\S* +)*(?:\S*\.venv/bin/)?{PROGRAMS}(?= )")
# Words of a run without the command, as pages list them.
BARE = re.compile(r"['+]*[a-z_]+\.[\w.]+=\S")
ANY_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^ *```(?:bash|sh|console)?\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:\w+=\S+ )*(?:python3?|pvt-bench|mlflow|pytest|pip) [^`]+)`")


@cache
def tracked() -> frozenset[str]:
    """What the repository holds: its files and their folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [name for name in listed.stdout.split("\0") if name]
    return frozenset({*files, *(str(folder) for name in files for folder in Path(name).parents)})


PAGES = sorted(name for name in tracked() if name.endswith(".md") and not name.startswith(KEPT))
DOCS = ["README.md", *(page for page in PAGES if page.startswith("docs/"))]


def links(page: str) -> list[str]:
    """The relative links and images of a page, in Markdown or HTML."""
    found = re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"", _prose(page))
    targets = [first or second for first, second in found]
    return [each for each in targets if not re.match(r"[a-z]+:", each)]


def anchors(page: str) -> set[str]:
    """The names that headings have as targets of links, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", (ROOT / page).read_text(), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each).lower() for each in headings]
    return {re.sub(r"[^\w\- ]", "", each).replace(" ", "-") for each in plain}


def _prose(page: str) -> str:
    """A page without its code, in which nothing is a link."""
    text = ANY_FENCED.sub("", (ROOT / page).read_text())
    return re.sub(r"(?<!\\)(`+)[^`].*?\1", "", text)


class Typed(NamedTuple):
    """A command of a page.

    text: the whole line. words: what follows the program, or the module of `python -m`.
    """

    page: str
    text: str
    variables: dict[str, str]
    program: str
    words: list[str]


def commands(page: str) -> list[Typed]:
    """The commands of a page, in its order, each once."""
    return [_read(page, line) for line in dict.fromkeys(_lines(page))]


def _lines(page: str) -> Iterator[str]:
    text = (ROOT / page).read_text()
    for code in FENCED.findall(text):
        for line in map(str.strip, code.replace("\\\n", " ").splitlines()):
            if BARE.match(line):
                run = "python -m pvt_bench model=pvt_small task=coco_retinanet launcher=slurm"
                yield f"{run} {line}"
            elif BEGINNING.match(line):
                yield from line.split(" && ")
    yield from INLINE.findall(" ".join(ANY_FENCED.sub("", text).split()))


def _read(page: str, line: str) -> Typed:
    words = shlex.split(line, comments=True)
    count = next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    variables = dict(word.split("=", 1) for word in words[:count])
    program, *rest = words[count:]
    program = (
        program.rpartition("/")[2].replace("python3", "python").replace("pvt-bench", "pvt_bench")
    )
    if program == "python" and rest[:1] == ["-m"]:
        program, rest = rest[1], rest[2:]
    return Typed(page, " ".join(words), variables, program, rest)


def files_of(page: str) -> dict[str, str]:
    """The YAML files that a page shows, by the path in their first line."""
    text = (ROOT / page).read_text()
    return dict(re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
