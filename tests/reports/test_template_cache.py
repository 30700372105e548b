"""Compiled templates on disk: found again, never stale, and never in the way."""

import jinja2
import pytest

from medwave.reports.template_cache import TemplateCache


def page(folder, text, name="world"):
    loader = jinja2.DictLoader({"page": text})
    return (
        jinja2.Environment(loader=loader, bytecode_cache=TemplateCache(folder)).get_template("page").render(name=name)
    )


def test_a_template_is_compiled_once(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    assert page(folder, "Hello {{ name }}") == "Hello world"
    (kept,) = folder.iterdir()
    monkeypatch.setattr(jinja2.Environment, "_generate", None)  # compiling again would fail
    assert page(folder, "Hello {{ name }}", "again") == "Hello again"
    assert [kept] == list(folder.iterdir())


def test_another_text_is_another_template(tmp_path):
    assert page(tmp_path, "Hello {{ name }}") == "Hello world"
    assert page(tmp_path, "Bye {{ name }}") == "Bye world"


@pytest.mark.parametrize("content", [b"", b"half a file", b"j2"])
def test_a_damaged_file_is_written_anew(tmp_path, content):
    page(tmp_path, "Hello {{ name }}")
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert page(tmp_path, "Hello {{ name }}") == "Hello world"
    assert kept.read_bytes() == whole


def test_where_nothing_can_be_written_pages_are_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert page(tmp_path / "file", "Hello {{ name }}") == "Hello world"
    assert page(tmp_path / "absent" / "folder", "Hello {{ name }}") == "Hello world"
