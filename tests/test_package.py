"""The project as it is installed, and its text."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is unpacked, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(folder), str(ROOT)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_configuration(installed: Path) -> None:
    for folder, pattern in (
        ("conf", "*.yaml"),
        ("experiments", "*.yaml"),
        ("results/published", "*.csv"),
    ):
        packed, source = installed / "pvt_bench" / folder, ROOT / folder
        names = {path.relative_to(source) for path in source.rglob(pattern)}
        assert {path.relative_to(packed) for path in packed.rglob(pattern)} == names
        assert names


def test_the_wheel_says_that_it_is_typed(installed: Path) -> None:
    assert (installed / "pvt_bench" / "py.typed").is_file()


def test_the_wheel_runs_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pvt_bench.__main__ as m; print(m.__file__); m.main()",
         "model=pvt_tiny", "task=coco_retinanet", "mode=cost"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    assert "23.0" in done.stdout  # millions, table 3 of arXiv 2102.12122


def test_ranges_keep_bad_releases_out() -> None:
    """Withdrawn malicious uploads of lightning, and the code execution of old hydra-core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "lightning>=2.6.4" in project["dependencies"]
    assert "hydra-core>=1.3.7,<1.4" in project["dependencies"]
    pinned = [word for word in project["dependencies"] if word.startswith("torch") and "==" in word]
    assert not pinned


def hooks() -> dict[str, str]:
    """The commands of the pre-commit hooks, by name."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return {hook["name"]: hook["entry"] for hook in local["hooks"]}


def test_the_hooks_check_style_format_and_types() -> None:
    assert set(hooks()) == {"ruff check", "ruff format", "mypy"}


@pytest.mark.parametrize("entry", hooks().values(), ids=hooks().keys())
def test_the_code_is_clean(entry: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *entry.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] + [
    f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))
]


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_name_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for test in re.findall(r"`(test_\w+\.py)`", text):
        assert any((ROOT / "tests").rglob(test)), test
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for path in re.findall(r"`((?:pvt_bench|conf|tests|benchmarks|experiments)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
