"""Print figures of the code's shape, one column per checkout.

python benchmarks/architecture.py [PATH ...]      this checkout by default
"""

import ast
import re
import sys
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

Function = ast.FunctionDef | ast.AsyncFunctionDef
LOOSE = re.compile(r"\b(DictConfig|Any)\b")


def measure(checkout: Path) -> dict[str, str]:
    """The figures of the package in a checkout, as text, by name."""
    conf = checkout / "conf"
    files = sorted((checkout / "pvt_bench").rglob("*.py"))
    texts = {_module(path, checkout): path.read_text() for path in files}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    edges = {name: _imports(tree, set(trees)) - {name} for name, tree in trees.items()}
    functions = [
        (name, node)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]
    lengths = {f"{name}.{node.name}": _length(node) for name, node in functions}
    sizes = sorted(_length(node) for _, node in functions)
    longest = max(lengths, key=lengths.__getitem__)
    inside = sum(_room(name) == _room(other) for name, found in edges.items() for other in found)
    rooms: dict[str, set[str]] = {_room(name): set() for name in edges}
    for name, found in edges.items():
        rooms[_room(name)] |= {_room(other) for other in found} - {_room(name)}
    return {
        "Python files": f"{len(files):,}",
        "lines": f"{sum(len(text.splitlines()) for text in texts.values()):,}",
        "lines of the longest file": f"{max(len(text.splitlines()) for text in texts.values())}",
        "imports within a room": f"{inside}",
        "imports between rooms": f"{sum(map(len, edges.values())) - inside}",
        "modules in circles": f"{_in_circles(edges)}",
        "rooms in circles": f"{_in_circles(rooms)}",
        "functions": f"{len(sizes):,}",
        "lines of a function, median": f"{median(sizes):g}",
        "lines of a function, 95 %": f"{quantiles(sizes, n=20)[-1]:.0f}",
        "lines of the longest function": f"{lengths[longest]}",
        "the longest function": longest.removeprefix("pvt_bench."),
        "type: ignore": f"{sum(text.count('type: ignore') for text in texts.values())}",
        "public parameters of DictConfig or Any": f"{sum(_loose(node) for _, node in functions)}",
        "recipe files in conf/": f"{len([*conf.glob('recipe*/*'), *conf.glob('recipe*.yaml')])}",
    }


def _module(path: Path, checkout: Path) -> str:
    name = ".".join(path.relative_to(checkout).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _room(module: str) -> str:
    """A package below pvt_bench, or a module beside them."""
    return ".".join(module.split(".")[:2])


def _imports(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports, inside its functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {each if each in modules else node.module for each in members}
    return names & modules


def _in_circles(edges: dict[str, set[str]]) -> int:
    """How many nodes can be reached from themselves."""
    return sum(name in _reached(name, edges) for name in edges)


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = set(edges[start])
    while left:
        name = left.pop()
        seen.add(name)
        left |= edges[name] - seen
    return seen


def _length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _loose(node: Function) -> int:
    """The parameters of a public function whose type says DictConfig or Any."""
    if node.name.startswith("_"):
        return 0
    parameters = chain(node.args.posonlyargs, node.args.args, node.args.kwonlyargs)
    notes = (each.annotation for each in parameters if each.annotation)
    return sum(bool(LOOSE.search(ast.unparse(note))) for note in notes)


def main(places: list[str]) -> None:
    """Print the table."""
    columns = [measure(Path(place)) for place in places]
    titles = [Path(place).resolve().name for place in places]
    rows = [["", *titles], *([key, *(each[key] for each in columns)] for key in columns[0])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        shown = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *shown]))


if __name__ == "__main__":
    main(sys.argv[1:] or [str(Path(__file__).parents[1])])
