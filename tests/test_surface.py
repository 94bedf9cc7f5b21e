"""The public surface: what users type and read by name changes only on purpose."""

from surface import SURFACE, lines


def test_the_surface_is_as_agreed() -> None:
    agreed, found = SURFACE.read_text().splitlines(), lines()
    gone = [f"- {line}" for line in agreed if line not in found]
    came = [f"+ {line}" for line in found if line not in agreed]
    how = "If that is meant: python tests/surface.py > tests/surface.txt"
    assert not gone + came, "\n".join(["The public surface has changed:", *gone, *came, how])
