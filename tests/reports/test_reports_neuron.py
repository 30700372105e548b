"""The neuron page: numbers in, numbers seen; lines where the tree is; complete, self-contained, small."""

import base64
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from neuron_cases import SHAPE, full_neuron_report, neuron, shifted
from PIL import Image
from report_cases import Page

from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.tree import UNDEFINED, Tree, empty_tree
from medwave.core.tree_paths import topology
from medwave.metrics import score_trace
from medwave.reports import NeuronReport, project, write_neuron_report
from medwave.reports.neuron_frame import Frame
from medwave.reports.neuron_plates import SUBPIXELS, vendored


def written(tmp_path, report) -> tuple[str, Page]:
    path = write_neuron_report(tmp_path / "report.html", report)
    assert path.stat().st_size < 1.5e6
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def pixels(image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",", 1)[1]))))


def points_of(path: str) -> np.ndarray:
    """All corners of an SVG path of moves and relative lines, in pixels."""
    corners = []
    for start, steps in re.findall(r"M(-?\d+ -?\d+)l([^M]*)", path):
        numbers = np.array(re.findall(r"-?\d+", steps), dtype=float).reshape(-1, 2)
        corners.append(np.array(start.split(), dtype=float) + np.vstack([[0, 0], np.cumsum(numbers, axis=0)]))
    return np.concatenate(corners) / SUBPIXELS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), full_neuron_report())


def test_the_top_says_what_was_made_and_how_it_went(page):
    _, shown = page
    assert shown.headings[0] == (1, "stack.tif was reconstructed")
    counts = topology(neuron().tree)
    assert f"{counts.branches} branches in one piece. The run succeeded." in shown.text


@pytest.mark.parametrize(
    ("status", "heading", "verdict"),
    [("warning", "was", "finished with a warning"), ("failed", "could not be", "failed: do not use its result.")],
)
def test_other_outcomes_are_said_with_their_reasons(tmp_path, status, heading, verdict):
    _, shown = written(tmp_path, full_neuron_report(status=status, messages=["No voxel size."], probability=None))
    assert shown.headings[0][1] == f"stack.tif {heading} traced"
    assert verdict in shown.text
    assert "No voxel size." in shown.text


def test_every_number_given_is_seen(page):
    html, shown = page
    rows = {row[0]: row[1:] for row in shown.rows if row}
    scores, counts = full_neuron_report().scores, topology(neuron().tree)
    found = scores.at_tolerance.by_samples
    assert 0 < found.f1 < 1
    assert rows["Sampleseach counts the same"] == [f"{v:.3f}" for v in found]
    assert rows["ESAmean distance"][2] == f"{scores.distances.esa:.3g}"
    assert rows["Forks"] == [str(counts.forks)]
    assert rows["trace"] == ["1.50", "1.50", "910"]
    assert rows["Voxels (z, y, x)"] == [" × ".join(map(str, SHAPE))]
    assert rows["Voxel size (z, y, x)"] == ["2 × 0.5 × 0.5 µm"]
    assert rows["Tree"] == ["tree.swc", "the reconstruction"]
    assert rows["threshold"] == ["0.5"]
    assert "medwave reconstruct stack.tif -o out" in shown.text
    tiles = re.findall(r'<div class="tile ?\w*"><dt>(.*?)</dt>', html)
    assert tiles == ["Length", "Branches", "Pieces", "F1 within 2 voxels", "Distance to gold", "CPU time"]


def test_lengths_are_micrometres_of_anisotropic_voxels(tmp_path):
    """Ten voxels along z at 2 um and twenty along x at 0.5 um are 30 um."""
    places = np.array([[10.0, 20, 5], [10, 20, 15], [30, 20, 15]])
    tree = Tree(places, np.full(3, 2.0), np.array([-1, 0, 1]), np.full(3, UNDEFINED))
    _, shown = written(tmp_path, NeuronReport("v", neuron().image, tree, spacing_um=(2.0, 0.5, 0.5)))
    rows = {row[0]: row[1:] for row in shown.rows if row}
    assert rows["Length (µm)"] == ["30.0"]
    assert rows["Mean radius (µm)"] == ["1.00"]
    assert rows["1"] == ["1", "1", "30.0", "1.00", "30.0", "1.34", "30, 20, 15"]  # straight: sqrt(20^2 + 10^2)


def test_lines_lie_over_the_fibres_in_all_three_planes(page):
    """The projections are brighter along the drawn gold lines than anywhere nearby aside."""
    html, shown = page
    for plane in ("xy", "xz", "zy"):
        base = next(i for i in shown.images if i.get("data-layer") == "image" and i.get("data-plane") == plane)
        grey = pixels(base)[..., 0].astype(float)
        panel = re.search(rf'<figure class="panel {plane}".*?</figure>', html, re.DOTALL)[0]
        corners = points_of(re.search(r'class="gold-line" d="(.*?)"', panel)[1])
        at = np.clip(np.floor(corners[:, ::-1]).astype(int), 0, np.array(grey.shape) - 1)
        on = grey[tuple(at.T)].mean()
        mirrored = grey[tuple((np.array(grey.shape) - 1 - at).T)].mean()
        assert on > 2 * mirrored
        assert on > 0.5 * grey.max()


def test_a_part_of_a_volume_is_shown_in_voxels_of_the_whole(tmp_path):
    """The same tree over the whole and over a part: branches end at the same voxels, lines at the same fibres."""
    image, tree = neuron().image, neuron().tree
    whole, shown = written(tmp_path, NeuronReport("v", image, tree))
    part, partly = written(
        tmp_path,
        NeuronReport("v", project(image, box=(slice(2, 24), slice(8, 72), slice(4, 84))), tree, origin=(2, 8, 4)),
    )
    ends = [[row[-1] for row in page.rows if len(row) == 8] for page in (shown, partly)]
    assert ends[0] == ends[1]
    assert ["First voxel (z, y, x)", "2, 8, 4"] in partly.rows
    corners = [points_of(re.search(r'class="tree-line" d="(.*?)"', html)[1]) for html in (whole, part)]
    assert (corners[0] - corners[1]).mean(axis=0) == pytest.approx([4 * 4, 8 * 4], abs=0.3)


def test_what_is_far_from_the_gold_tree_has_its_own_colour(page, tmp_path):
    html, _ = page
    assert all(f'class="{kind}-line" d="M' in html for kind in ("tree", "extra", "gold"))
    same, _ = written(tmp_path, full_neuron_report(tree=neuron().tree))
    assert 'class="extra-line"' not in same
    alone, shown = written(tmp_path, full_neuron_report(gold=None, scores=None))
    assert 'class="gold-line"' not in alone
    assert "Against the gold tree" not in [title for _, title in shown.headings]


def test_a_gold_tree_that_reaches_beyond_the_volume_is_cut(tmp_path):
    truth = neuron().tree
    html, _ = written(tmp_path, full_neuron_report(gold=shifted(truth, (30, 0, 0)), scores=None, spacing_um=None))
    panel = re.search(r'<figure class="panel xy".*?</figure>', html, re.DOTALL)[0]
    corners = points_of(re.search(r'class="gold-line" d="(.*?)"', panel)[1])
    width = Frame.of(project(neuron().image), None).pixels("xy")[0]
    assert corners[:, 0].max() == pytest.approx(width, abs=1)


def test_pictures_have_texts_and_are_not_blank(page):
    _, shown = page
    pictures = [i for i in shown.images if i["src"].startswith("data:image/jpeg")]
    assert len(pictures) == 3 * 3 + 3
    assert len({i["alt"] for i in pictures}) == len(pictures)
    for image in pictures:
        assert len(image["alt"]) > 15
        assert pixels(image).shape == (int(image["height"]), int(image["width"]), 3)
        assert pixels(image).std() > 8
    sizes = {(i["data-layer"], i["data-plane"]): (int(i["width"]), int(i["height"])) for i in pictures[3:]}
    (x, y), (_, z) = sizes["image", "xy"], sizes["image", "xz"]
    assert x / y == pytest.approx(84 / 72, rel=0.01)
    assert x / z == pytest.approx(84 * 0.5 / (24 * 2.0), rel=0.01)


def test_the_data_of_the_view_in_space_say_where_the_tree_is(page):
    html, _ = page
    data = json.loads(re.search(r'id="tree-data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["size"] == pytest.approx([42, 36, 48])
    whole = np.frombuffer(base64.b64decode(data["points"]), "<u2").reshape(-1, 3) / 65535
    points = np.array(data["low"]) + whole * (np.array(data["high"]) - data["low"])
    places = (full_neuron_report().tree.positions + 0.5) * (0.5, 0.5, 2.0)
    reach = np.abs(points[:, None] - places[None]).max(axis=2).min(axis=1)
    assert reach.max() < 0.01
    starts = np.frombuffer(base64.b64decode(data["starts"]), "<u4")
    assert len(starts) == topology(neuron().tree).branches + 1
    assert starts[-1] == len(points)
    assert data["somata"][0] == pytest.approx([*places[0], 2.0])
    for way in ("order", "radius", "distance"):
        assert len(base64.b64decode(data["colours"][way]["level"])) == len(points)


def test_charts_add_up(page):
    html, _ = page
    length = Frame.of(project(neuron().image), (2.0, 0.5, 0.5)).placed(full_neuron_report().tree).length
    for chart, total in (("length-by-radius", length), ("length-by-order", length), ("distances", 200.0)):
        part = re.search(rf'aria-labelledby="{chart}-title".*?</section>', html, re.DOTALL)[0]
        values = [float(v.replace("\u202f", "")) for v in re.findall(r'title="[^"]*[:,] ([\d.\u202f]+)"', part)]
        assert len(values) >= 2
        assert sum(values) == pytest.approx(total, rel=0.01)


def test_headings_go_down_one_level_at_a_time_and_tables_have_captions(page):
    _, shown = page
    levels = [level for level, _ in shown.headings]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert shown.captions == shown.tags.count("table") >= 9
    assert all(link[1:] in shown.ids for link in shown.links if link.startswith("#"))


def test_nothing_is_loaded_from_outside(page):
    html, shown = page
    assert [a for a in shown.addresses if not a.startswith(("data:", "#"))] == ["tree.swc"]
    own = html.replace(vendored("three.min.js"), "")
    assert len(own) < len(html) - 400_000
    assert "url(" not in own
    assert "@import" not in own
    assert "http" not in re.sub(r"data:[^\"]*", "", own)


def test_the_vendored_file_carries_its_licence():
    licence = vendored("three.LICENSE.txt")
    assert "MIT License" in licence
    assert licence.strip() in vendored("three.min.js")
    assert "</script" not in vendored("three.min.js").lower()


def test_names_are_escaped_everywhere(tmp_path):
    nasty = '<img src=x onerror="alert(1)">&\'{{7*7}}</script>'
    report = full_neuron_report(
        name=nasty,
        status="warning",
        messages=[nasty],
        stages=[(nasty, 1.0, 1.0, None)],
        options={nasty: nasty},
        versions={nasty: nasty},
        files={nasty: ("javascript:alert(1)", nasty)},
        command_line=nasty,
        score_units=nasty,
    )
    html, shown = written(tmp_path, report)
    assert "<img src=x" not in html
    assert all("onerror" not in image for image in shown.images)
    assert shown.text.count(nasty) >= 8
    assert "javascript%3Aalert%281%29" in shown.links


@pytest.mark.parametrize("tree", [empty_tree(), Tree([[3.0, 4, 5]], [1.0], np.array([-1]), np.array([1]))])
def test_a_tree_without_a_branch_still_gives_a_page(tmp_path, tree):
    scores = score_trace(neuron().tree, tree)
    html, shown = written(tmp_path, full_neuron_report(tree=tree, scores=scores, status="failed"))
    assert "No branch was found." in shown.text
    assert "In space" not in [title for _, title in shown.headings]
    assert "THREE" not in html
    assert '<div class="tile bad"><dt>F1 within 2 voxels</dt>' in html


def test_the_least_report_is_a_complete_page(tmp_path):
    html, shown = written(tmp_path, NeuronReport("only", neuron().image, neuron().tree))
    titles = [title for _, title in shown.headings if _ == 2]
    assert titles == ["In space", "Over the volume", "Branches", "Volume and run"]
    assert 'id="layer-' not in html
    assert "voxels of fibre" in shown.text


@pytest.mark.parametrize("value", [0.0, np.nan, 7.0])
def test_images_that_show_nothing_still_give_a_page(tmp_path, value):
    image = np.full((3, 9, 200), value, np.float32)
    assert written(tmp_path, NeuronReport("flat", image, neuron().tree, mask=image))[1].images


def test_noise_does_not_make_the_page_too_large(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (6, 900, 900)).astype(np.uint8)
    steps = np.random.default_rng(2).normal(0, 4, (12_000, 3)).reshape(120, 100, 3)
    walks = np.array([450.0, 450.0, 3.0]) + np.cumsum(steps, axis=1)
    places = np.clip(walks, 0, (899, 899, 5)).reshape(-1, 3)
    parent = np.arange(12_000) - 1
    parent[::100] = -1
    tree = Tree(places, np.ones(12_000), parent, np.zeros(12_000, int))
    moved = shifted(tree, (1, 0, 0))
    written(tmp_path, NeuronReport("noise", noise, tree, probability=noise, mask=noise, gold=moved))


def test_wrong_shapes_and_states_are_refused():
    with pytest.raises(GeometryError, match=r"mask lies on the voxels of the image, \(24, 72, 84\) .* \(4, 5, 6\)"):
        full_neuron_report(mask=np.ones((4, 5, 6)))
    with pytest.raises(InputError, match="one of ok, warning, failed, got 'fine'"):
        full_neuron_report(status="fine")


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="absent"):
        write_neuron_report(tmp_path / "absent" / "report.html", full_neuron_report())


def test_the_same_report_gives_the_same_page(tmp_path, page):
    assert written(tmp_path, full_neuron_report())[0] == page[0]
