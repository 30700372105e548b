"""``medwave batch``: what it prints and writes, its exit codes, and its errors."""

import csv
import json

import pytest
from cli_cases import QUICK, write_pair

from medwave.models import shipped_weights


def test_one_of_two_fails(medwave, tmp_path):
    write_pair(tmp_path)
    table = tmp_path / "pairs.csv"
    table.write_text("name,fixed,moving,fixed_labels,moving_labels\n"
                     "good,fixed.nii.gz,moving.nii.gz,fixed_labels.nii.gz,moving_labels.nii.gz\n"
                     "bad,fixed.nii.gz,absent.nii.gz,,\n")  # fmt: skip
    done = medwave("batch", table, "-o", tmp_path / "out", *QUICK)
    assert done.code == 1
    assert f"index: {tmp_path / 'out' / 'index.html'}" in done.out
    assert "1 of 2: good: done in" in done.err
    assert "Dice 0." in done.err
    assert "absent.nii.gz: no such file" in done.err
    assert "1 of 2 registrations failed" in done.err
    with (tmp_path / "out" / "failed.csv").open(newline="") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["bad"]
    again = medwave("batch", table, "-o", tmp_path / "out", *QUICK)
    assert "1 of 2: good: complete before, Dice 0." in again.err
    piped = medwave("batch", table, "-o", tmp_path / "out", "--json", "-", *QUICK)
    assert piped.code == 1
    good, bad = json.loads(piped.out)
    assert (good["name"], good["status"], bad["name"], bad["status"]) == ("good", "ok", "bad", "failed")
    assert 0 < good["dice"] < 1
    assert bad["dice"] is None
    assert "absent.nii.gz: no such file" in bad["error"]


def test_weights_are_taken_by_their_name(medwave, tmp_path, monkeypatch):
    write_pair(tmp_path)
    (tmp_path / "pairs.csv").write_text("fixed,moving\nfixed.nii.gz,moving.nii.gz\n")
    monkeypatch.chdir(tmp_path)
    words = ("batch", "pairs.csv", "-o", "out", "--weights", "brain", *QUICK)
    first, again = medwave(*words), medwave(*words)
    assert (first.code, again.code) == (0, 0), first.err
    assert "complete before" in again.err
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*/run.json"))
    assert record["inputs"]["weights"]["path"] == str(shipped_weights("brain"))


def test_unusable_questions_are_errors_of_one_line(medwave, tmp_path):
    write_pair(tmp_path)
    for words, said in (
        ((tmp_path,), "it is not said what is registered to what"),
        ((tmp_path / "absent.csv",), "no such file"),
        ((tmp_path, "--to-template", tmp_path / "absent.nii.gz"), "no such file"),
        ((tmp_path, "--template-labels", tmp_path / "fixed_labels.nii.gz"), "belongs to --to-template"),
        ((tmp_path, "--all-pairs", "--jobs", "0"), "jobs: one or more"),
        ((tmp_path, "--all-pairs", "--weights", "heart"), "heart: there is no such weight file; weights that come"),
    ):
        failed = medwave("batch", *words, "-o", tmp_path / "out", *QUICK)
        assert failed.code == 2
        assert len(failed.errors) == 1
        assert said in failed.errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "table", "columns"),
    [
        (("batch",), "summary.csv", "fixed,moving"), (("template",), "failed.csv", "image,second"),
        (("propagate-labels", "fixed.nii.gz"), "summary.csv", "image,labels"),
    ],
)  # fmt: skip
def test_the_table_is_not_replaced(medwave, tmp_path, monkeypatch, words, table, columns):
    write_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    row = "fixed.nii.gz,fixed_labels.nii.gz\n"
    (tmp_path / table).write_text(f"{columns}\n{row}moving.nii.gz,moving_labels.nii.gz\n")
    failed = medwave(*words, table, "-o", ".", *QUICK)
    assert failed.code == 2
    assert failed.errors == [
        f"medwave: error: {table}: a result would replace this input; choose another output folder"
    ]
    assert (tmp_path / table).read_text().startswith(columns)


@pytest.mark.parametrize("words", [("template", "x"), ("propagate-labels", "x", "y")])
def test_options_of_landmarks_are_for_commands_that_take_landmarks(medwave, words):
    failed = medwave(*words, "-o", "out", "--landmark-reach", "5")
    assert failed.code == 2
    assert "No such option: --landmark-reach" in failed.errors[0]


def test_a_template_and_what_was_left_out(medwave, tmp_path, monkeypatch):
    paths = write_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    images = (paths["fixed"], paths["moving"], "bad.nii.gz")
    done = medwave("template", *images, "-o", tmp_path / "out", "--iterations", "1", *QUICK)
    assert done.code == 1
    assert f"template: {tmp_path / 'out' / 'template.nii.gz'}" in done.out
    assert f"page: {tmp_path / 'out' / 'index.html'}" in done.out
    assert "iteration 1 of 1" in done.err
    assert "1 images were left out" in done.err
    with (tmp_path / "out" / "failed.csv").open(newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [str(tmp_path / "bad.nii.gz")]
    done = medwave("template", *images[:2], "-o", tmp_path / "out", "--iterations", "1", *QUICK)
    assert done.code == 0
    assert "complete before" not in done.err  # nothing had to be looked at again
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_a_template_of_one_image_is_an_error_of_one_line(medwave, tmp_path):
    paths = write_pair(tmp_path)
    failed = medwave("template", paths["fixed"], "-o", tmp_path / "out", *QUICK)
    assert failed.code == 2
    assert len(failed.errors) == 1
    assert "2 or more images, 1 can be used" in failed.errors[0]
    assert not (tmp_path / "out").exists()
