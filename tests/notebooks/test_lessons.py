"""Each lesson runs from its first cell to its last, as a reader would run it, and is kept without its outputs."""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="lessons are executed by the extra test")
nbclient = pytest.importorskip("nbclient", reason="lessons are executed by the extra test")

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = ROOT / "notebooks" / "text"
SECONDS_PER_CELL = 600  # a lesson takes half a minute of one core; machines may be busy


def test_there_are_lessons():
    assert LESSONS


def percent_cells(text):
    """Kind and source of each cell of a percent script, whose head is a block of comments between two ``# ---``."""
    cells = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    kinds = ["markdown" if "[markdown]" in said else "code" for said in cells[::2]]
    return [
        (kind, (re.sub(r"^# ?", "", source, flags=re.MULTILINE) if kind == "markdown" else source).strip())
        for kind, source in zip(kinds, cells[1::2], strict=True)
    ]


def test_every_lesson_has_its_text():
    assert [path.stem for path in LESSONS] == sorted(path.stem for path in TEXTS.glob("*.py"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_and_its_text_agree(path):
    cells = [(cell.cell_type, cell.source.strip()) for cell in nbformat.read(path, as_version=4).cells]
    assert cells == percent_cells((TEXTS / f"{path.stem}.py").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_to_its_end(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    lesson = nbformat.read(path, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in lesson.cells if cell.cell_type == "code")
    client = nbclient.NotebookClient(
        lesson, timeout=SECONDS_PER_CELL, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()  # raises where a cell fails
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "Warning" not in said
    assert "Traceback" not in said
    print(said)
