"""The pages of the documentation: what they tell a reader to run runs, and their pictures and pages are there."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("nilearn", reason="the samples of the pages need the extra demo")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ["get-started", "how-to/registration", "how-to/neurons", "how-to/pipelines", "how-to/image-networks"]
WRITTEN = sorted(p for p in DOCS.rglob("*.md") if not {"generated", "_build"} & set(p.relative_to(DOCS).parts))


def program(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner():
    return program("run_pages")


@pytest.fixture(scope="module")
def samples(runner, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    runner.make_samples(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_runs(runner, samples, page, monkeypatch, capsys):
    monkeypatch.chdir(samples)
    names: dict[str, object] = {}
    wanted = [step for step in runner.steps(page) if not step.text.startswith("medwave demo")]
    assert len(wanted) > 3
    for step in wanted:
        runner.run_step(step, names)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("page", ["concepts/fields", "concepts/cubes"])
def test_the_code_of_a_concept_runs(runner, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = runner.steps(page)
    assert found
    for step in found:
        runner.run_step(step, {})


def test_a_command_that_fails_is_told_with_its_place(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=r"page.md:3: exit code 2: medwave register"):
        runner.run_step(runner.Step("page.md:3", "sh", "medwave register absent.nii.gz other.nii.gz -o out"), {})


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_a_page_is_written_and_its_pictures_and_links_are_there(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) > 8 or "{include}" in text, "an unwritten page"
    assert not re.search(r"\b(TODO|TBD|FIXME|coming soon)\b", text, re.IGNORECASE)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (path.parent / target).resolve()
        if "generated" not in there.parts:  # those are checked by the build
            assert there.exists(), f"{path.name} links to {target}"


def test_commands_in_pages_and_tables_are_ones_that_medwave_knows():
    """Every `medwave ...` in the pages and the README: the command exists, and so do its options."""
    import typer

    from medwave.cli.app import app

    root = typer.main.get_command(app)
    checked = 0
    for path in [*WRITTEN, ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        inline = re.findall(r"`(medwave [^`\n]+)`", text)
        for line in [*re.findall(r"^(?:\$ )?(medwave [^\n#]+)", fenced, re.MULTILINE), *inline]:
            words = shlex.split(line.replace("'", "").replace('"', ""))[1:]
            command = root
            while getattr(command, "commands", None) and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            if getattr(command, "commands", None) and words:
                assert words[0].startswith("-") or words[0] == "...", f"{path.name}: no such command: {line}"
            known = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
            known |= {"--help", "-h", "--install-completion", "--show-completion", "--version"}
            wrong = [w for w in words if re.match(r"--?[a-z]", w) and w.split("=")[0] not in known]
            assert not wrong, f"{path.name}: {line}: no option {wrong}"
            checked += 1
    assert checked > 60


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    before = list(sys.path)
    sys.path[:0] = [str(DOCS), str(ROOT / "benchmarks")]
    try:
        folder = tmp_path_factory.mktemp("generated")
        program("generate_pages").write_pages(folder)
        return folder
    finally:
        sys.path[:] = before


def test_every_benchmark_with_results_has_a_page_with_its_numbers(generated):
    pages = {p.stem for p in (generated / "benchmarks").glob("*.md")} - {"index"}
    results = ROOT / "benchmarks" / "results"
    assert pages == {p.stem[:-11] for p in results.glob("*.json")} | {p.stem for p in results.glob("*.jsonl")}
    found = json.loads((ROOT / "benchmarks/results/contrasts-2026-11-27.json").read_text())
    page = (generated / "benchmarks" / "contrasts.md").read_text()
    assert all(f"{row['error_mm']:.3f}" in page for row in found["rows"])


def test_results_that_no_page_was_written_for_are_shown_plainly(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pages = program("benchmark_pages")
    (tmp_path / "new_thing-2026-01-01.json").write_text(
        json.dumps(
            {"rounds": 3, "rows": [{"method": "a", "cpu_s": 1.23456, "runs": [1, 2]}], "cases": {"x": {"f1": 0.5}}}
        )
    )
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    page = pages.pages()["new_thing"]
    assert page.startswith("# New thing")
    assert "| rounds | 3 |" in page
    assert "| a | 1.235 |" in page
    assert "| x | 0.5 |" in page


def test_commands_options_and_cards_are_made_from_what_is_there(generated):
    commands = (generated / "commands.md").read_text()
    assert "## medwave register" in commands
    assert "## medwave train waveunet" in commands
    assert "`--bridge-distance`" in commands
    options = (generated / "reference" / "options.md").read_text()
    assert "## RegisterOptions" in options
    assert "| `radius` | `2` |" in options
    cards = {p.name for p in (ROOT / "medwave/models/shipped").glob("*.md")}
    assert cards == {p.name for p in (generated / "models").glob("*.md")} - {"index.md"}
