"""The registration page: numbers in, numbers seen; complete, escaped, self-contained, small and cheap."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from report_cases import Page, ball, full_report, volume

from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.reports import RegistrationReport, write_registration_report


def written(tmp_path, report) -> tuple[str, Page]:
    html = write_registration_report(tmp_path / "report.html", report).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), full_report())


def test_both_overlays_of_the_fixed_edges_are_there(page):
    titles = [title for _, title in page[1].headings]
    assert titles.index("After the affine") + 1 == titles.index("After the deformation")


def test_the_top_says_what_was_registered_to_what_and_how_it_went(page):
    _, shown = page
    assert shown.headings[0] == (1, "moving.nii.gz was registered to fixed.nii.gz")
    assert "The registration by an affine and a deformation succeeded." in shown.text


@pytest.mark.parametrize(
    ("status", "heading", "verdict"),
    [
        ("warning", "was registered", "finished with a warning"),
        ("failed", "could not be registered", "failed: do not use its result."),
    ],
)
def test_other_outcomes_are_said_with_their_reasons(tmp_path, status, heading, verdict):
    _, shown = written(tmp_path, full_report(status=status, messages=["The headers are 31 mm apart."]))
    assert heading in shown.headings[0][1]
    assert verdict in shown.text
    assert "The headers are 31 mm apart." in shown.text


def test_every_number_given_is_seen(page):
    _, shown = page
    rows = {row[0]: row[1:] for row in shown.rows if row}
    assert rows["Local correlationwindows of 9 voxels"] == ["0.214", "0.431", "0.838"]
    assert rows["Inverse consistency (mm)"] == ["–", "–", "0.041"]
    assert rows["Left hippocampus"] == ["17", "0.411", "0.823", "+0.412"]
    assert rows["Mean true error (mm)"] == ["3.21", "–", "0.840"]
    assert rows["affine"] == ["3.10", "1.80", "512"]
    assert rows["All"] == ["12.0", "6.80", "1\u202f730"]
    assert rows["Voxels"] == ["48 × 52 × 44", "40 × 40 × 40"]
    assert rows["levels"] == ["8, 4, 2, 1"]
    assert rows["medwave"] == ["0.1.0"]
    assert rows["Warped image"] == ["warped.nii.gz", "moving image on the fixed grid"]
    assert "medwave register fixed.nii.gz moving.nii.gz" in shown.text


def test_key_figures_stand_on_top(page):
    html, _ = page
    tiles = re.findall(r'<div class="tile ?(\w*)"><dt>(.*?)</dt><dd><div class="value">(.*?)</div>', html)
    assert [(tone, label) for tone, label, _ in tiles] == [
        ("good", "Local correlation"),
        ("", "Inverse consistency"),
        ("good", "Folded voxels"),
        ("good", "Mean Dice"),
        ("good", "Mean true error"),
        ("", "CPU time"),
    ]
    assert [value.split("<")[0] for _, _, value in tiles] == ["0.838", "0.041", "0", "0.786", "0.840", "12.0"]


def test_a_measure_that_moved_the_wrong_way_is_marked(page):
    html, _ = page
    assert re.search(r'class="num bad">\s*0\.750', html)


def test_folds_are_counted_and_shown(tmp_path):
    determinant = np.ones((48, 52, 44), np.float32)
    determinant[20:22, 20:22, 20:23] = -1
    html, shown = written(tmp_path, full_report(jacobian=determinant))
    assert "12 of 109 824 voxels are folded" in shown.text
    assert '<div class="tile bad"><dt>Folded voxels</dt><dd><div class="value">12</div>' in html


def test_pictures_have_texts_and_are_not_blank(page):
    _, shown = page
    pictures = [i for i in shown.images if i["src"].startswith("data:image/jpeg")]
    assert len(pictures) == 12 + 3 * (1 + 1 + 1 + 3 + 1 + 1 + 1 + 1 + 1 + 1)
    assert len({i["alt"] for i in pictures}) == len(pictures)
    for image in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",", 1)[1]))))
        assert len(image["alt"]) > 15
        assert pixels.shape == (int(image["height"]), int(image["width"]), 3)
        assert pixels.std() > 8
    assert all("alt" in i for i in shown.images)


def test_a_mark_in_the_right_hemisphere_is_on_the_right_of_the_page(tmp_path):
    data = ball((48, 52, 44))
    data[8:14, 22:30, 18:26] = 160  # LAS: small first index is the right of the person
    affine = np.diag([-1.0, 1, 1, 1])
    marked = volume(data, affine, name="f")
    _, shown = written(tmp_path, RegistrationReport(fixed=marked, moving=marked, warped=data))
    axial = next(i for i in shown.images if i["alt"].startswith("Axial") and "warped" in i["alt"])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(axial["src"].split(",", 1)[1])))).astype(int)[..., 0]
    bright = pixels[60:-60, 40:-40] > 235
    assert bright.sum() > 100
    assert np.nonzero(bright)[1].mean() > 0.6 * bright.shape[1]


def test_headings_go_down_one_level_at_a_time_and_tables_have_captions(page):
    _, shown = page
    levels = [level for level, _ in shown.headings]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert shown.captions == shown.tags.count("table") >= 6
    assert all(link[1:] in shown.ids for link in shown.links if link.startswith("#"))


def test_nothing_is_loaded_from_outside(page):
    html, shown = page
    assert [a for a in shown.addresses if not a.startswith(("data:", "#"))] == ["warped.nii.gz"]
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in re.sub(r"data:[^\"]*", "", html)


def test_names_are_escaped_everywhere(tmp_path):
    nasty = '<img src=x onerror="alert(1)">&\'{{7*7}}'
    report = full_report(
        fixed=volume(ball((48, 52, 44)), name=nasty),
        moving=volume(ball((20, 20, 20), radius_mm=8), name=nasty),
        status="warning",
        messages=[nasty],
        figures=[(nasty, 1.0, 2.0, 3.0, nasty, nasty, "")],
        dice={1: (nasty, 0.1, 0.2)},
        stages=[(nasty, 1.0, 1.0, None)],
        options={nasty: nasty},
        versions={nasty: nasty},
        files={nasty: ('a "b" <c> & d\u00e9.nii.gz', nasty), "script": ("javascript:alert(1)", "")},
        command_line=nasty,
    )
    html, shown = written(tmp_path, report)
    assert "<img src=x" not in html
    assert "49" not in re.sub(r"data:[^\"]*|<style>.*?</style>", "", html, flags=re.DOTALL).split("<main")[0]
    assert all("onerror" not in image for image in shown.images)
    assert shown.text.count(nasty) >= 10
    assert "a%20%22b%22%20%3Cc%3E%20%26%20d%C3%A9.nii.gz" in shown.links
    assert "javascript%3Aalert%281%29" in shown.links


def test_a_name_that_is_not_utf8_does_not_stop_the_report(tmp_path):
    _, shown = written(tmp_path, full_report(files={"odd": ("scan\udcff.nii.gz", "bytes of another encoding")}))
    assert "scan%FF.nii.gz" in shown.links


def test_the_least_report_is_a_complete_page(tmp_path):
    data = ball((30, 30, 30), radius_mm=10)
    image = volume(data, name="only")
    html, shown = written(tmp_path, RegistrationReport(fixed=image, moving=image, warped=data))
    titles = [title for _, title in shown.headings]
    assert "Deformation" not in titles
    assert "Measures" not in titles
    assert "After the affine" not in titles
    assert "After the deformation" not in titles
    assert "The result" in titles
    assert "The registration succeeded." in shown.text
    assert '<dl class="tiles"' not in html
    assert shown.tags.count("img") >= 6


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">f4", np.float64, bool])
def test_any_data_type_is_shown(tmp_path, dtype):
    data = (ball((24, 24, 24), radius_mm=8) > 50).astype(dtype)
    image = volume(data)
    assert written(tmp_path, RegistrationReport(fixed=image, moving=image, warped=data))[1].images


@pytest.mark.parametrize("value", [0.0, np.nan, 5.0])
def test_empty_images_still_give_a_page(tmp_path, value):
    data = np.full((8, 1, 9), value, np.float32)
    image = volume(data)
    report = RegistrationReport(
        fixed=image,
        moving=image,
        warped=data,
        affine_only=data,
        displacement_voxels=np.zeros((3, 8, 1, 9), np.float32),
        jacobian=np.full((8, 1, 9), np.nan, np.float32),
        fixed_labels=np.zeros((8, 1, 9), int),
        warped_labels=np.zeros((8, 1, 9), int),
        true_error_mm=data,
        dice={1: ("absent", None, float("nan"))},
        figures=[("unknown",)],
        status="failed",
    )
    assert "could not be registered" in written(tmp_path, report)[1].headings[0][1]


def test_wrong_shapes_and_states_are_refused():
    with pytest.raises(
        GeometryError, match=r"jacobian lies on the fixed grid: its shape is \(48, 52, 44\), got \(4, 5\)"
    ):
        full_report(jacobian=np.ones((4, 5)))
    with pytest.raises(GeometryError, match="displacement_voxels"):
        full_report(displacement_voxels=np.zeros((48, 52, 44, 3)))
    with pytest.raises(InputError, match="one of ok, warning, failed, got 'fine'"):
        full_report(status="fine")


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="absent"):
        write_registration_report(tmp_path / "absent" / "report.html", full_report())


def test_the_same_report_gives_the_same_page(tmp_path, page):
    assert written(tmp_path, full_report())[0] == page[0]


@pytest.mark.data
def test_the_page_of_a_pair_of_brains_stays_small(tmp_path, data_folder):
    nibabel = pytest.importorskip("nibabel")
    ndimage = pytest.importorskip("scipy.ndimage")
    pair = []
    for number in (1009, 1003):
        image = nibabel.load(data_folder / f"brains/benchmark/{number}_T1_brain.nii.gz")
        pair.append(volume(np.asarray(image.dataobj, dtype=np.float32), image.affine, name=f"{number}.nii.gz"))
    fixed, moving = pair
    matrix = np.linalg.inv(moving.grid.affine) @ fixed.grid.affine
    shape = fixed.grid.shape
    before = ndimage.affine_transform(moving.data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1)
    coarse = np.random.default_rng(0).normal(0, 4, (3, 6, 6, 6)).astype(np.float32)
    u = np.stack([ndimage.zoom(c, np.array(shape) / 6, order=1) for c in coarse])
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + u
    warped = ndimage.map_coordinates(before, places, order=1)
    report = RegistrationReport(
        fixed=fixed,
        moving=moving,
        warped=warped,
        before=before,
        affine_only=before,
        displacement_voxels=u,
        jacobian=np.ones(shape, np.float32),
        true_error_mm=np.linalg.norm(u, axis=0),
    )
    path = write_registration_report(tmp_path / "report.html", report)
    assert path.stat().st_size < 3e6
