"""Where the settings lie: `conf/`, `experiments/` and `results/published/`."""

from pathlib import Path


def config_dir() -> Path:
    """The folder `conf/`."""
    return data_dir("conf")


def data_dir(name: str) -> Path:
    """A folder of the project's data: beside the package in a checkout, inside it installed."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
