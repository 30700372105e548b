"""Point tables: places in RAS mm, other columns untouched, and errors that name the line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medwave.core.errors import GeometryError, InputError, MissingFileError, OutputError
from medwave.volumes import PointTable, read_points, write_points

ANTS = "x,y,z,t,label,comment\n1,2,3,0,7,left\n-4.5,0,1e1,0,8,\n"


@pytest.fixture
def table_of(tmp_path):
    def read(text, **options):
        path = tmp_path / "points.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_points(path, **options)

    return read


def test_an_ants_file_is_lps(table_of):
    table = table_of(ANTS, space="LPS")
    np.testing.assert_array_equal(table.points_mm, [[-1, -2, 3], [4.5, 0, 10]])
    assert table.columns == ("x", "y", "z", "t", "label", "comment")
    assert [row[3:] for row in table.rows] == [("0", "7", "left"), ("0", "8", "")]


def test_a_ras_file_is_taken_as_it_is(table_of):
    np.testing.assert_array_equal(table_of(ANTS).points_mm, [[1, 2, 3], [-4.5, 0, 10]])


@pytest.mark.parametrize(
    "text",
    [
        "name,Z,Y,X\na,3,2,1\n",
        "\ufeffx,y,z\n1,2,3\n",
        "x, y , z\r\n 1 ,2, 3\r\n",
        "\n\nx,y,z\n\n1,2,3\n , , \n",
        'x,y,z,"a ""quoted, name"""\n1,2,3,"b, c"\n',
    ],
)
def test_shapes_of_tables(table_of, text):
    np.testing.assert_array_equal(table_of(text).points_mm, [[1, 2, 3]])


def test_a_table_without_rows_has_no_points(table_of, tmp_path):
    table = table_of("x,y,z\n")
    assert table.points_mm.shape == (0, 3)
    write_points(tmp_path / "none.csv", table)
    assert (tmp_path / "none.csv").read_text() == "x,y,z\n"


@settings(deadline=None, max_examples=30)
@given(
    points=arrays(np.float64, st.tuples(st.integers(0, 6), st.just(3)), elements=st.floats(-1e4, 1e4)),
    space=st.sampled_from(["RAS", "LPS"]),
)
def test_round_trip(tmp_path_factory, points, space):
    path = tmp_path_factory.mktemp("points") / "p.csv"
    write_points(path, PointTable(points), space=space)
    np.testing.assert_allclose(read_points(path, space=space).points_mm, points, atol=6e-7)


def test_other_columns_and_their_order_survive(table_of, tmp_path):
    table = table_of('id,z,note,x,y\n1,3,"a, b",1,2\n2,6,é,4,5\n')
    write_points(tmp_path / "out.csv", table.moved(table.points_mm + 1), space="LPS")
    expected = 'id,z,note,x,y\n1,4.000000,"a, b",-2.000000,-3.000000\n2,7.000000,é,-5.000000,-6.000000\n'
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "empty; the first line names the columns x,y,z"),
        ("x,y\n1,2\n", "line 1: the columns x, y and z.*z came not so: x,y"),
        ("x;y;z\n1;2;3\n", "line 1: .*comma-separated"),
        ("1,2,3\n", "line 1: the columns"),
        ("x,y,z,X\n1,2,3,4\n", "line 1: .*once each.*x came not so"),
        ("x,y,z\n1,2,3\n1,two,3\n", "line 3: a coordinate is a finite number of mm, got 'two'"),
        ("x,y,z\n\n1,2,\n", "line 3: .*got ''"),
        ("x,y,z\n1,2,nan\n", "line 2: .*got 'nan'"),
        ("x,y,z\n1,inf,3\n", "line 2: .*got 'inf'"),
        ("x,y,z\n1,2\n", "line 2: 3 columns are named, 2 values came"),
        ("x,y,z\n1,2,3,4\n", "line 2: 3 columns are named, 4 values came"),
        ('x,y,z,note\n1,2,3,"two\nlines"\n1,2,q,\n', "line 4: .*got 'q'"),
        (b"\xff\xfe\x00x", "not a CSV text file"),
    ],
)
def test_bad_tables_name_the_file_and_the_line(table_of, text, pattern):
    with pytest.raises(InputError, match=rf"points\.csv.*{pattern}"):
        table_of(text)


def test_missing_files_and_unknown_spaces(tmp_path, table_of):
    with pytest.raises(MissingFileError, match=r"gone\.csv"):
        read_points(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="folder"):
        read_points(tmp_path)
    with pytest.raises(InputError, match='"RAS" or "LPS", got \'MNI\''):
        table_of(ANTS, space="MNI")
    with pytest.raises(InputError, match="RAS"):
        write_points(tmp_path / "out.csv", PointTable(np.zeros((1, 3))), space="ras")
    with pytest.raises(OutputError, match="create it"):
        write_points(tmp_path / "absent" / "out.csv", PointTable(np.zeros((1, 3))))


def test_tables_that_do_not_fit_together():
    with pytest.raises(GeometryError, match=r"\(N, 3\), got shape \(3,\)"):
        PointTable(np.zeros(3))
    with pytest.raises(GeometryError, match="2 points for 1 rows"):
        PointTable(np.zeros((2, 3)), ("x", "y", "z"), (("1", "2", "3"),))
    table = PointTable(np.zeros((2, 3)))
    with pytest.raises(GeometryError, match="3 points for 2 rows"):
        table.moved(np.zeros((3, 3)))
