"""The neuron page in a real browser: it draws, every control works, and without WebGL the still pictures stay."""

import pytest
from conftest import WITHOUT_WEBGL
from neuron_cases import full_neuron_report

from medwave.reports import write_neuron_report

pytestmark = pytest.mark.browser

STILL = {"reduced_motion": "reduce", "viewport": {"width": 900, "height": 700}}
LOOK = """() => {
  const canvas = document.querySelector(".stage canvas");
  canvas.redraw();
  const gl = canvas.getContext("webgl2"), w = gl.drawingBufferWidth, h = gl.drawingBufferHeight;
  const pixels = new Uint8Array(4 * w * h);
  gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let lit = 0, coloured = 0, sum = 0, weight = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const [r, g, b] = pixels.subarray(i, i + 3), low = Math.min(r, g, b), high = Math.max(r, g, b);
    lit += high > 16;
    coloured += high - low > 40;
    sum += (r + 2 * g + 3 * b) * ((i >> 2) % w + 1);
    weight += r - b;
  }
  return { lit: lit / (w * h), coloured: coloured / (w * h), print: sum, warmth: weight / (w * h) };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_neuron_report(tmp_path_factory.mktemp("neuron") / "report.html", full_neuron_report()).as_uri()


@pytest.fixture
def open_page(visit, address):
    def load(**options):
        page = visit(address, **{**STILL, **options})
        page.wait_for_selector(".stage.live canvas", timeout=60_000)
        page.evaluate(
            "Promise.all([...document.images].map(i => i.decode())).then(() => new Promise(requestAnimationFrame))"
        )
        return page

    return load


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1280, "dark")])
def test_it_opens_without_errors_fits_and_draws(open_page, width, theme):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    seen = page.evaluate(LOOK)
    assert seen["lit"] > 0.05
    assert seen["coloured"] > 0.004
    assert not page.locator(".stills").is_visible()
    assert page.problems == []


def test_colours_volume_and_gold_tree_can_be_chosen(open_page):
    page = open_page()
    before = page.evaluate(LOOK)
    page.get_by_role("radio", name="Radius").check()
    assert page.evaluate(LOOK)["warmth"] > before["warmth"]
    assert page.locator(".way[data-way=radius]").is_visible()
    assert not page.locator(".way[data-way=order]").is_visible()
    page.get_by_role("checkbox", name="Volume").uncheck()
    assert page.evaluate(LOOK)["lit"] < 0.6 * before["lit"]
    without_walls = page.evaluate(LOOK)
    page.get_by_role("checkbox", name="Gold tree", exact=True).uncheck()
    assert page.evaluate(LOOK)["coloured"] < without_walls["coloured"]
    assert page.problems == []


def test_keys_turn_zoom_and_reset(open_page):
    page = open_page()
    canvas = page.locator(".stage canvas")
    assert "Arrow keys" in canvas.get_attribute("aria-label")
    at_home = page.evaluate(LOOK)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(LOOK)["print"] != at_home["print"]
    for _ in range(4):
        page.keyboard.press("+")
    assert page.evaluate(LOOK)["coloured"] > at_home["coloured"]
    page.keyboard.press("Home")
    assert page.evaluate(LOOK)["print"] == at_home["print"]


def test_it_turns_by_itself_until_it_is_touched_and_not_where_motion_is_unwanted(open_page):
    still = open_page()
    assert still.locator("#turn").inner_text() == "Turn"
    page = open_page(reduced_motion="no-preference")
    button = page.locator("#turn")
    assert button.inner_text() == "Stop turning"
    page.locator(".stage").scroll_into_view_if_needed()
    first = page.evaluate(LOOK)["print"]
    page.wait_for_function(f"({LOOK})().print !== {first}", timeout=30_000)
    page.locator(".stage canvas").click()
    assert button.inner_text() == "Turn"
    page.keyboard.press(" ")
    assert button.get_attribute("aria-pressed") == "true"


def test_tree_gold_and_layer_are_shown_and_hidden_without_a_script(visit, address):
    page = visit(address, java_script_enabled=False, **STILL)
    panel = page.locator(".panel.xy")
    assert page.locator(".stills").is_visible()
    assert panel.locator("img[data-layer=image]").is_visible()
    for name, line in (("tree", ".tree-line"), ("extra", ".extra-line"), ("gold", ".gold-line")):
        assert panel.locator(line).is_visible()
        page.locator(f"#show-{name}").uncheck()
        assert not panel.locator(line).is_visible()
    page.locator("#layer-probability").check()
    assert panel.locator("img[data-layer=probability]").is_visible()
    assert not panel.locator("img[data-layer=image]").is_visible()


def test_without_webgl_the_still_pictures_stay(visit, address):
    page = visit(address, flags=WITHOUT_WEBGL, **STILL)
    assert page.locator(".stills").is_visible()
    assert page.locator(".stage canvas").count() == 0
    assert page.locator("#turn").count() == 0
    assert not page.locator(".turning").is_visible()
    assert page.problems == []


def test_it_prints_still_pictures_on_white_without_controls(open_page):
    page = open_page(viewport={"width": 680, "height": 900}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".stills").is_visible()
    assert not page.locator(".stage canvas").is_visible()
    assert not page.locator(".controls").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
