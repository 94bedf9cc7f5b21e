"""What a configuration may call: the classes that `_target_` names, and no others."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

from pvt_bench.config.schema import plain
from pvt_bench.errors import InputError

PACKAGES = "PVT_BENCH_PACKAGES"
ROOMS = ("pvt_bench.datasets", "pvt_bench.networks", "pvt_bench.tasks")
# The nodes that are built; what Hydra would call elsewhere has no meaning here.
DOORS = ("model", "task.network", "task.module", "dataset")
CALLING = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")


def find_target(prefix: str, name: object) -> Any:
    """Return the class or function that `_target_` of the node `prefix` names; calls nothing.

    It is a class of pvt-bench's own networks, tasks and datasets, or a class or function of a
    package in PVT_BENCH_PACKAGES. It has to be defined there: what these only import is refused.

    Raises:
        InputError: it is another one, or cannot be imported.
    """
    key, packages = f"{prefix}._target_={name}", _named_packages()
    # Before anything is imported: an import runs code.
    if not _lies_in(str(name), (*ROOMS, *packages)):
        raise InputError(_refusal(key))
    try:
        target = resolve_name(str(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{key} cannot be imported: {error}.") from error
    if not _is_offered(target, packages):
        raise InputError(_refusal(key))
    return target


def signature_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of a class's or function's parameters, by name."""
    parameters = inspect.signature(target).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def build(prefix: str, node: Any, **objects: Any) -> Any:
    """Call what the node names with its other keys and with `objects`."""
    values = plain(node)
    return find_target(prefix, values.pop("_target_", None))(**values, **objects)


def refuse_other_calls(values: Mapping[str, Any]) -> None:
    """Refuse Hydra's keys for calls wherever nothing is built.

    Raises:
        InputError: the first such key.
    """
    doors = [f"{door}._target_" for door in DOORS]
    for key in _calling_keys(values):
        if key not in doors:
            raise InputError(
                f"{key} cannot be used: a configuration calls what {', '.join(doors)} name, and "
                "nothing else. Leave it out."
            )


def _named_packages() -> list[str]:
    return os.environ.get(PACKAGES, "").replace(",", " ").split()


def _is_offered(target: Any, packages: Sequence[str]) -> bool:
    if not (inspect.isclass(target) or inspect.isfunction(target) or inspect.ismethod(target)):
        return False
    home = f"{target.__module__}."
    return _lies_in(home, packages) or (inspect.isclass(target) and _lies_in(home, ROOMS))


def _lies_in(name: str, packages: Sequence[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _refusal(key: str) -> str:
    return (
        f"{key} may not be called: it is neither a class of {', '.join(ROOMS)}, nor a class or "
        f"function that a package in {PACKAGES} defines. For a package of your own, use "
        f"{PACKAGES}=my_package in front of the command."
    )


def _calling_keys(node: Any, prefix: str = "") -> Iterator[str]:
    items: Any = node.items() if isinstance(node, Mapping) else ()
    if isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        if key in CALLING:
            yield f"{prefix}{key}"
        yield from _calling_keys(value, f"{prefix}{key}.")
