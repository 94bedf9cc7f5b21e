"""The pages: links lead to what is in the repository, and lists are whole."""

import os
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, anchors, links, tracked

from pvt_bench.config.folders import data_dir


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_what_the_repository_holds(page: str) -> None:
    for link in links(page):
        path, _, anchor = urllib.parse.unquote(link).partition("#")
        target = os.path.normpath(Path(page).parent / path) if path else page
        assert target in tracked(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_links_and_anchors_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: *two* `words`\n[one](a.md#b) ![two](<c.png>) `[no](d)` [far](https://e)\n"
        '<img src="f.png">\n```\n[no](g)\n```\n[here](#a-title-two-words)\n'
    )
    assert links(str(page)) == ["a.md#b", "c.png", "f.png", "#a-title-two-words"]
    assert anchors(str(page)) == {"a-title-two-words"}


def test_the_index_lists_every_page() -> None:
    pages = {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert {link for link in links("docs/README.md") if "/" not in link} == pages


def test_the_page_on_sweeps_names_every_study() -> None:
    text = (ROOT / "docs" / "sweeps.md").read_text()
    studies = [path.stem for path in data_dir("experiments").glob("sweep/*.yaml")]
    assert studies
    assert [name for name in studies if f"| `{name}` |" not in text] == []


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        found: dict[str, Any] = {}
        exec(block, found)
        assert [each.shape[-1] for each in found["maps"]] == [56, 28, 14, 7]
