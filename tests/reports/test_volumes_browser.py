"""The page of volumes in a real browser: slices are drawn the right way round, controls work, also without WebGL."""

import re

import numpy as np
import pytest
from conftest import WITHOUT_WEBGL
from report_cases import ball, stored

from medwave.core.geometry import Grid, Volume
from medwave.reports.volumes import volume_set, write_volume_page

pytestmark = pytest.mark.browser

STILL = {"viewport": {"width": 900, "height": 800}}
SHAPE = (36, 44, 32)
LOOK = """(which) => {
  const { under, top, space } = document.querySelector("canvas.under").viewers;
  const nv = { under, top, space: space() }[which];
  nv.drawScene();
  const gl = nv.gl, W = gl.drawingBufferWidth, H = gl.drawingBufferHeight, pixels = new Uint8Array(4 * W * H);
  gl.readPixels(0, 0, W, H, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  const mean = (x, y, w, h) => {
    let sum = 0, count = 0;
    for (let j = Math.ceil(y); j < y + h - 1; j++)
      for (let i = Math.ceil(x); i < x + w - 1; i++, count++) sum += pixels[4 * ((H - 1 - j) * W + i) + 1];
    return sum / count;
  };
  const halves = Array.from(nv.screenSlices, (t) => t.axCorSag).map((axis, n) => {
    const [x, y, w, h] = nv.screenSlices[n].leftTopWidthHeight;
    const upright = [mean(x, y, w, h / 2), mean(x, y + h / 2, w, h / 2)];
    return [axis, mean(x, y, w / 2, h), mean(x + w / 2, y, w / 2, h), ...upright];
  });
  let lit = 0, coloured = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const [r, g, b] = pixels.subarray(i, i + 3), most = Math.max(r, g, b);
    lit += most > 40;
    coloured += most - Math.min(r, g, b) > 60;
  }
  return { halves, lit: lit / (W * H), coloured: coloured / (W * H) };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Balls with a bright lump at the left, front and top of the person, stored as L, P, S by axes 2, 0, 1."""
    canonical = ball(SHAPE, radius_mm=12)
    canonical[8:14, 26:32, 20:26] += 300
    data, affine = stored(canonical, (1.0, 1.0, 1.0), (2, 0, 1), (False, True, True))
    grid = Grid(data.shape, affine)
    warped = np.roll(data, 2, axis=0)
    jacobian = np.where(data > 50, np.float32(1.6), np.float32(1))
    jacobian[2:4] = -0.5
    volumes = volume_set(
        Volume(data, grid, "fixed"), [("warped", "Warped", warped), ("moving", "Moving", np.roll(data, 6, axis=1))],
        jacobian=jacobian, labels=[("fixed-labels", "Fixed labels", np.where(data > 200, 53, data > 50).astype(int))],
    )  # fmt: skip
    return write_volume_page(tmp_path_factory.mktemp("volumes") / "viewer.html", volumes, title="a on b").as_uri()


@pytest.fixture
def open_page(visit, address):
    def load(**options):
        page = visit(address, allowed=("file:", "data:", "blob:"), **{**STILL, **options})
        page.wait_for_selector(".volumes[data-shown='fixed warped']", timeout=120_000)
        return page

    return load


def over(page, name):
    page.locator("select[name=over]").select_option(name)
    page.wait_for_selector(f".volumes[data-shown='fixed {name}']", timeout=120_000)


def readout(page):
    return page.locator(".readout").inner_text()


def test_slices_are_drawn_with_the_left_of_the_person_at_the_left(open_page):
    page = open_page(color_scheme="dark")
    page.evaluate("""() => {
        const { under } = document.querySelector("canvas.under").viewers;
        under.scene.crosshairPos = under.mm2frac([11, 29, 23]);
    }""")
    for which in ("under", "top"):
        seen = page.evaluate(LOOK, which)
        assert seen["lit"] > 0.05
        halves = {axis: rest for axis, *rest in seen["halves"]}
        assert sorted(halves) == [0, 1, 2]
        for axis in (0, 1):  # axial and coronal: the lump is at the left, and in front or on top
            left, right, high, low = halves[axis]
            assert left > right + 2
            assert high > low + 2
        behind, front, high, low = halves[2]
        assert front > behind + 2
        assert high > low + 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert page.problems == []


def test_layers_ways_and_keys(open_page):
    page = open_page()
    shown = page.locator(".views .over")
    style = lambda name: shown.evaluate(f"n => n.style.{name}")  # noqa: E731
    assert style("opacity") == "0.5"
    page.locator("canvas.under").focus()
    page.keyboard.press("s")
    page.locator("input[type=range]").fill("25")
    widths = [float(size.split("px")[0]) for size in style("maskSize").split(", ")]
    tiles = page.evaluate(
        "Array.from(document.querySelector('canvas.under').viewers.under.screenSlices, t => t.leftTopWidthHeight[2])"
    )
    assert widths == pytest.approx([0.75 * w for w in tiles], abs=1)
    page.get_by_label("Checkerboard").check()
    assert style("maskImage").count("svg") >= 3
    page.locator("canvas.under").focus()
    page.keyboard.press(" ")
    assert not shown.is_visible()
    page.wait_for_timeout(300)  # what is hidden must not be drawn without a size
    page.keyboard.press(" ")
    assert shown.is_visible()

    places = []
    for _ in range(2):  # the first step also goes to the middle of a voxel
        page.keyboard.press("ArrowRight")
        page.keyboard.press("PageUp")
        places.append(re.findall(r"[xyz] (−?[\d.]+)", readout(page)))
    (x0, y0, z0), (x, y, z) = ([float(n.replace("−", "-")) for n in place] for place in places)
    assert (x - x0, y - y0, z - z0) == (2, 0, 2)  # voxels of half the resolution

    over(page, "jacobian")
    assert "Change of volume: × 1.60" in readout(page)
    assert page.locator(".way[data-layer=jacobian]").is_visible()
    assert page.evaluate(LOOK, "top")["coloured"] > 0.01
    over(page, "fixed-labels")
    assert "Fixed labels: label" in readout(page)
    over(page, "warped-difference")
    assert page.locator(".way[data-layer=warped-difference]").is_visible()
    assert page.problems == []


def test_the_third_dimension_is_drawn_when_it_is_asked_for(open_page):
    page = open_page(viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Show in 3-D").click()
    page.wait_for_selector(".solid[data-shown=warped]", timeout=120_000)
    assert page.evaluate(LOOK, "space")["lit"] > 0.01
    page.get_by_role("button", name="Hide 3-D").click()
    assert not page.locator(".solid").is_visible()
    assert page.problems == []


def test_without_webgl_the_still_pictures_stay(visit, address):
    page = visit(address, flags=WITHOUT_WEBGL, **STILL)
    assert page.locator(".stills img").count() == 3 * 7
    assert page.locator(".stills img").first.is_visible()
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator(".views").count() == 0
    assert not page.locator(".choices").is_visible()
    assert not page.locator(".readout").is_visible()
    assert page.problems == []
