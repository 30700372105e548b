"""SWC files: every rule by its code, round trips, what other programs make of our files, and real files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import InputError, MissingFileError, OutputError
from medwave.core.tree import SOMA, Tree, empty_tree
from medwave.volumes.swc import (
    CODES,
    read_swc,
    read_swc_comments,
    read_swc_units,
    validate_swc,
    write_swc,
)

GOOD = "1 1 0 0 0 2 -1\n2 2 1 0 0 1 1\n3 2 2 0 0 1 2\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "tree.swc"
    path.write_text(text)
    return path


def codes(path: Path, **options: object) -> list[tuple[str, int]]:
    return [(finding.code, finding.line) for finding in validate_swc(path, **options)]


def y_tree() -> Tree:
    """A soma, a stem and two arms; depth-first."""
    positions = [[0, 0, 0], [3, 0, 0], [6, 0, 0], [9, 3, 0], [12, 6, 1.5], [9, -3, 0], [12, -6, -1.25]]
    return Tree(positions, [2, 1, 1, 0.5, 0.25, 0.5, 0.125], [-1, 0, 1, 2, 3, 2, 5], [SOMA, 3, 3, 3, 3, 3, 3])


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    tree = read_swc(written(tmp_path, "# a comment\n" + GOOD))
    assert tree.positions[:, 0].tolist() == [0, 1, 2]
    assert tree.radius.tolist() == [2, 1, 1]
    assert tree.kind.tolist() == [1, 2, 2]
    assert tree.parent.tolist() == [-1, 0, 1]
    assert tree.extra_names == ()


def test_what_the_wild_does_to_files_is_read(tmp_path: Path) -> None:
    text = "\ufeff# ünïts\r\n\r\n 7\t2.0  1e0 -2.5 +3 .5 0 # a note\r\n0 11 0 0 0 0 -1\r\n9 2 4 4 4 1 7.0"
    path = tmp_path / "wild.swc"
    path.write_bytes(text.encode())
    tree = read_swc(path)
    assert tree.parent.tolist() == [1, -1, 0]
    assert tree.positions[0].tolist() == [1, -2.5, 3]
    assert codes(path) == [
        ("parent-after-child", 3),
        ("type-change", 3),
        ("id-not-positive", 4),
        ("radius-zero", 4),
        ("type-unknown", 4),
    ]


def test_further_columns_are_kept_with_their_names(tmp_path: Path) -> None:
    text = "#id type x y z r parent seg_id level\n1 1 0 0 0 2 -1 5 0.5\n2 2 1 0 0 1 1 6 0.25\n"
    tree = read_swc(written(tmp_path, text))
    assert tree.extra.tolist() == [[5, 0.5], [6, 0.25]]
    assert tree.extra_names == ("seg_id", "level")
    write_swc(tmp_path / "again.eswc", tree)
    assert read_swc(tmp_path / "again.eswc") == tree
    unnamed = read_swc(written(tmp_path, text.split("\n", 1)[1]))
    assert unnamed.extra_names == ("column_8", "column_9")
    ragged = written(tmp_path, "1 1 0 0 0 2 -1 5\n2 2 1 0 0 1 1\n")
    assert read_swc(ragged).extra.tolist() == [[5], [0]]
    assert codes(ragged) == [("ragged-columns", 2)]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_swc(tmp_path / "absent.swc")
    (tmp_path / "binary.swc").write_bytes(b"raw_image_stack_by_hpeng\0L\1")
    with pytest.raises(InputError, match="binary"):
        read_swc(tmp_path / "binary.swc")
    with pytest.raises(InputError, match="a file is needed"):
        read_swc(tmp_path)


# --- rules -----------------------------------------------------------------------------------------------------------

ERRORS = {
    "empty": ("# nothing\n\n", 0),
    "columns": ("1 1 0 0 0 2 -1\n2 2 1 0 0 1\n", 2),
    "not-a-number": ("1 1 0 0 0 2 -1\n2 2 1,5 0 0 1 1\n", 2),
    "not-whole": ("1 1 0 0 0 2 -1\n2 2.5 1 0 0 1 1\n", 2),
    "not-finite": ("1 1 0 0 0 2 -1\n# between\n2 2 nan 0 0 1 1\n", 3),
    "radius-negative": ("1 1 0 0 0 2 -1\n2 2 1 0 0 -1 1\n", 2),
    "id-duplicate": ("1 1 0 0 0 2 -1\n1 2 1 0 0 1 -1\n", 2),
    "parent-self": ("1 1 0 0 0 2 -1\n2 2 1 0 0 1 2\n", 2),
    "parent-missing": ("1 1 0 0 0 2 -1\n2 2 1 0 0 1 7\n", 2),
    "cycle": ("1 1 0 0 0 2 -1\n2 2 1 0 0 1 3\n3 2 2 0 0 1 2\n", 2),
}
WARNINGS = {
    "id-not-positive": ("0 1 0 0 0 2 -1\n1 2 1 0 0 1 0\n", 1),
    "parent-after-child": ("2 2 1 0 0 1 1\n1 1 0 0 0 2 -1\n", 1),
    "radius-zero": ("1 1 0 0 0 2 -1\n2 2 1 0 0 0 1\n", 2),
    "zero-length": ("1 1 0 0 0 2 -1\n2 2 0 0 0 1 1\n", 2),
    "type-unknown": ("1 1 0 0 0 2 -1\n2 8 1 0 0 1 1\n", 2),
    "type-change": ("1 2 0 0 0 2 -1\n2 3 1 0 0 1 1\n", 2),
    "ragged-columns": ("1 1 0 0 0 2 -1 1\n2 2 1 0 0 1 1\n", 2),
}


@pytest.mark.parametrize("code", ERRORS)
def test_each_error_has_its_code_and_stops_the_reader_with_one_line(tmp_path: Path, code: str) -> None:
    text, line = ERRORS[code]
    path = written(tmp_path, text)
    found = [finding for finding in validate_swc(path) if finding.severity == "error"]
    assert {finding.code for finding in found} == {code}
    assert found[0].line == line
    with pytest.raises(InputError) as caught:
        read_swc(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else f"{path}: ")


@pytest.mark.parametrize("code", WARNINGS)
def test_each_warning_has_its_code_and_does_not_stop_the_reader(tmp_path: Path, code: str) -> None:
    text, line = WARNINGS[code]
    path = written(tmp_path, text)
    assert codes(path) == [(code, line)]
    assert validate_swc(path)[0].severity == "warning"
    assert len(read_swc(path)) == 2


def test_rules_that_need_to_know_more(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "4 2 9 0 0 1 -1\n")
    assert codes(path) == []
    assert codes(path, single_tree=True) == [("many-roots", 0)]
    assert codes(path, image_shape=(1, 1, 10)) == []
    assert codes(path, image_shape=(1, 1, 9)) == [("outside-image", 4)]
    cyclic = written(tmp_path, "1 2 0 0 0 2 2\n2 2 1 0 0 1 1\n")
    assert codes(cyclic) == [("no-root", 0), ("cycle", 1), ("parent-after-child", 1), ("cycle", 2)]
    with pytest.raises(InputError, match="circle"):
        read_swc(cyclic)


def test_every_rule_is_tested() -> None:
    assert set(ERRORS) | set(WARNINGS) | {"no-root", "many-roots", "outside-image"} == set(CODES)


def test_all_errors_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "1 1 0 0 0 2 -1\n2 2 inf 0 0 1 1\nword\n3 2 0 0 0 1 9\n")
    assert codes(path) == [("not-finite", 2), ("columns", 3), ("parent-missing", 4)]
    with pytest.raises(InputError, match=r"line 2.*\(2 more errors\)"):
        read_swc(path)


# --- writing ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    parent = np.array([random.integers(-1, n) for n in range(count)])
    positions, radius = random.normal(scale=1e3, size=(count, 3)).round(6), random.random(count).round(6)
    extra = random.integers(-5, 5, size=(count, 2))
    tree = Tree(positions, radius, parent, random.integers(0, 8, count), extra, ("a", "b"))
    path = tmp_path_factory.mktemp("swc") / "tree.swc"
    write_swc(path, tree)
    assert read_swc(path) == tree


def test_comments_say_units_and_origin_and_survive_a_second_writing(tmp_path: Path) -> None:
    path = tmp_path / "tree.swc"
    write_swc(path, y_tree(), header=["traced by hand", "two\nlines"], units="um", origin="corner of the slide")
    text = path.read_text()
    assert text.startswith("# units: um\n# origin: corner of the slide;")
    assert read_swc_units(path) == "um"
    again = tmp_path / "again.swc"
    write_swc(again, read_swc(path), header=read_swc_comments(path))
    assert read_swc_units(again) == "voxels"
    assert read_swc_comments(again)[2:-1] == ("traced by hand", "two", "lines")
    assert read_swc_units(written(tmp_path, GOOD)) is None


def test_parents_are_written_before_children(tmp_path: Path) -> None:
    path = tmp_path / "tree.swc"
    backwards = y_tree().select(np.arange(7)[::-1])
    write_swc(path, backwards)
    assert validate_swc(path) == []
    assert read_swc(path).length == pytest.approx(backwards.length)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(InputError, match="without nodes"):
        write_swc(path, empty_tree())
    with pytest.raises(InputError, match="units"):
        write_swc(path, y_tree(), units="mm")
    with pytest.raises(OutputError, match="does not exist"):
        write_swc(tmp_path / "absent" / "tree.swc", y_tree())
    assert path.read_text() == GOOD


# --- real files and other programs -----------------------------------------------------------------------------------


@pytest.mark.data
def test_real_files_survive_a_round_trip(data_folder: Path, tmp_path: Path) -> None:
    files = sorted((data_folder / "neurons").glob("*/*.swc"))
    assert len(files) == 8
    for file in files:
        assert {finding.severity for finding in validate_swc(file)} <= {"warning"}
        tree = read_swc(file)
        write_swc(tmp_path / file.name, tree)
        again = read_swc(tmp_path / file.name)
        assert len(again) == len(tree)
        assert again.length == pytest.approx(tree.length)
        assert {finding.code for finding in validate_swc(tmp_path / file.name)} <= {"type-change", "zero-length"}
        if (tree.parent < np.arange(len(tree))).all():
            assert again == tree  # the files have no more than six decimals


def test_morphio_and_neurom_read_what_is_written(tmp_path: Path) -> None:
    morphio = pytest.importorskip("morphio", reason="MorphIO is not installed; it only confirms our SWC files")
    neurom = pytest.importorskip("neurom", reason="NeuroM is not installed; it only confirms our SWC files")
    path = tmp_path / "tree.swc"
    write_swc(path, y_tree())
    assert len(morphio.Morphology(str(path)).sections) == 3
    length = neurom.get("total_length", neurom.load_morphology(path))
    assert length == pytest.approx(y_tree().length - 3, abs=1e-4)  # the edge within the soma is no neurite
