"""The page of the wavelet layers: every block of code runs, section by section, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "wavelets.md").read_text()
SECTIONS = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}
BLOCKS = {title: re.findall(r"```python\n(.*?)```", part, re.DOTALL) for title, part in SECTIONS.items()}


@pytest.mark.parametrize(
    "title", [pytest.param(t, marks=pytest.mark.slow if "export" in t else ()) for t, found in BLOCKS.items() if found]
)
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")  # torch about itself
def test_the_code_of_a_section_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS[title]:
        exec(compile(block, f"docs/wavelets.md, {title}", "exec"), names)


def test_there_is_no_code_outside_sections_and_every_picture_is_there() -> None:
    assert PAGE.count("```python") == sum(len(found) for found in BLOCKS.values()) == 7
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", PAGE)
    assert pictures == ["images/bands.jpg", "images/pooling.jpg", "images/wavelet_speed.png"]
    assert all((DOCS / picture).stat().st_size < 500_000 for picture in pictures)
