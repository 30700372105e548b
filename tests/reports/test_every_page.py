"""Every kind of page, at two widths and in both themes, in one browser: what anybody may expect of each of them.

No error, nothing wider than the screen, pictures that load and say what they show, canvases that are not blank, text
that stands out from its ground (WCAG 2.2, 1.4.3 level AA: 4.5 to 1), and controls that Tab reaches and marks (2.1.1,
2.4.7). The pictures of the pages stay in pytest's folder.
"""

import io

import numpy as np
import pytest
from cohort_cases import write_cohort
from neuron_cases import full_neuron_report
from PIL import Image
from report_cases import ball, full_report, volume

from medwave.metrics import AveragePrecision, OperatingPoint, auroc, folded_accuracy
from medwave.reports import (
    ClassifierReport,
    DetectorReport,
    OutputFile,
    Overlay,
    Run,
    SegmenterReport,
    ShownBoxes,
    ShownImage,
    Stage,
    VerificationReport,
    write_classifier_report,
    write_detector_report,
    write_neuron_report,
    write_registration_report,
    write_segmenter_report,
    write_verification_report,
)
from medwave.reports.template import TemplateRow, write_template_page
from medwave.reports.volumes import volume_set, write_volume_page

pytestmark = pytest.mark.browser

RUN = Run(
    stages=[Stage("evaluate", 9.0, 5.0, 500.0)], files={"record": OutputFile("run.json", "what came out")},
    options={"split": "test"}, versions={"medwave": "0.1.0"}, command_line="medwave evaluate-classifier data.npz",
)  # fmt: skip
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def registration(path):
    return write_registration_report(path, full_report(status="warning", messages=["The images overlap by half only."]))


def neuron(path):
    return write_neuron_report(path, full_neuron_report())


def volumes(path):
    fixed = volume(ball((36, 44, 32), radius_mm=12))
    moved = np.roll(fixed.data, 2, axis=0)
    return write_volume_page(path, volume_set(fixed, [("warped", "Warped", moved)]), title="moving on fixed")


def cohort(path):
    return write_cohort(path.parent)


def template(path):
    rows = [
        TemplateRow(f"{n}.nii.gz", volume(ball((40, 44, 36))), 4, 3.0 / (n + 1), 0.1 if n else None, 0.05)
        for n in range(3)
    ]
    given = {"options": {"preset": "fast"}, "versions": {"medwave": "0.1.0"}, "command_line": "medwave template images"}
    return write_template_page(path, rows, failed={"broken.nii.gz": "not an image"}, **given)


def verification(path):
    rng = np.random.default_rng(1)
    same = np.arange(60) % 2 == 0
    scores = rng.normal(0, 0.2, 60) + same
    names = [f"person {n}" for n in range(60)]
    told = {"name": "pairs.txt", "first": names, "second": names, "accepted": {0.1: None}}
    measured = {"accuracy": folded_accuracy(scores, same, 5), "auroc": auroc(scores, same)}
    return write_verification_report(path, VerificationReport(same=same, scores=scores, **told, **measured))


def classifier(path):
    errors = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in ("shot_noise", "fog")}
    groups = {"Noise": ["shot_noise"], "Weather": ["fog"]}
    made = ClassifierReport(
        "WaveResNet18", ("cat", "dog", "frog"), np.array([[8, 1, 1], [2, 7, 1], [0, 3, 7]]), errors, groups,
        consistency=0.9, attacks=[("pgd", 2, 0.4), ("pgd", 4, 0.1)], attacked=30, least_change=0.2,
        worst=[ShownImage(PHOTO, "dog, is a cat (99 %)")], run=RUN,
    )  # fmt: skip
    return write_classifier_report(path, made)


def segmenter(path):
    truth = np.indices((24, 32))[1] // 11
    shown = Overlay("street.png", PHOTO, truth, np.roll(truth, 2, axis=1), 0.4)
    matrix = np.array([[80, 5, 5], [4, 70, 6], [2, 3, 60]])
    return write_segmenter_report(
        path, SegmenterReport("WSegNet", ("road", "car", "pole"), matrix, ("pole",), overlays=[shown], run=RUN)
    )


def detector(path):
    precision = {o: AveragePrecision(1 - o, {"cell": 1.5 - 2 * o, "ring": 0.5}) for o in (0.5, 0.75, 0.95)}
    true, found = np.array([[2, 3, 12, 14], [15, 20, 23, 31]]), np.array([[3, 3, 12, 15], [0, 22, 8, 30]])
    both = np.array([0, 1])
    shown = ShownBoxes("test, image 3", PHOTO, true, both, found, both, np.array([0.9, 0.6]), np.array([0, -1]))
    errors = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in ("shot_noise", "fog")}
    made = DetectorReport(
        "RetinaNet on wave_resnet18 haar", 20, ("cell", "ring"), (30, 12), precision,
        OperatingPoint(0.4, 0.5, 0.5, 0.5),
        "RetinaNet on resnet18", precision, errors, errors, {"Noise": ["shot_noise"], "Weather": ["fog"]}, [shown], RUN,
    )  # fmt: skip
    return write_detector_report(path, made)


KINDS = {
    "registration": (registration, None), "neuron": (neuron, ".stage.live canvas"),
    "volumes": (volumes, ".volumes[data-shown='fixed warped']"), "cohort": (cohort, ".viewer"),
    "template": (template, None), "verification": (verification, None), "classifier": (classifier, None),
    "segmenter": (segmenter, None), "detector": (detector, None),
}  # fmt: skip
"""What writes a page, and what is there once its scripts are done."""
SCREENS = ((390, "dark"), (390, "light"), (1280, "light"), (1280, "dark"))
PIECE = 4000
SLOW = ("neuron", "volumes")
"""Pages that draw in three dimensions, which takes its time in software."""

FAINT = """() => {
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3]));
  const ground = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      layers.unshift(parse(getComputedStyle(n).backgroundColor));
      if (layers[0][3] === 1) break;
    }
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
  let count = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), node = texts.currentNode.parentElement;
    if (!text || /^(SCRIPT|STYLE|NOSCRIPT)$/.test(node.tagName)) continue;
    if (!node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const back = ground(node), front = over(parse(getComputedStyle(node).color), back);
    const [light, dark] = [front, back].map(luminance).sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    count++;
    if (contrast < 4.5) faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return [count, faint];
}"""

TABBED = """() => {
  const all = document.querySelectorAll("a[href], button, input, select, summary, [tabindex]:not([tabindex='-1'])");
  window.tabbed = new Set();
  window.group = (n) => n.type === "radio" ? `radio ${n.name}` : n;  // arrows move within a group
  window.wanted = new Map([...all].filter((n) => !n.disabled && n.checkVisibility()).map((n) => [group(n), n]));
  return wanted.size;
}"""
STEP = """() => {
  const n = document.activeElement, style = getComputedStyle(n);
  if (n === document.body) return "";
  tabbed.add(group(n));
  const marked = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  return marked ? "" : n.outerHTML.slice(0, 90);
}"""
LEFT = "() => [...wanted].filter(([key]) => !tabbed.has(key)).map(([, n]) => n.outerHTML.slice(0, 90))"


@pytest.fixture(scope="module", params=[pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS])
def case(request, tmp_path_factory):
    """A kind of page: its name, the file, what to wait for."""
    write, ready = KINDS[request.param]
    path = tmp_path_factory.mktemp(request.param) / "page.html"
    return request.param, write(path), ready


@pytest.fixture
def open_page(visit, case):
    def load(width, theme):
        page = visit(
            case[1].as_uri(), allowed=("file:", "data:", "blob:"), color_scheme=theme, reduced_motion="reduce",
            viewport={"width": width, "height": 900},
        )  # fmt: skip
        if case[2]:
            page.wait_for_selector(case[2], timeout=120_000)
        return page

    return load


def test_it_fits_and_can_be_read_on_every_screen(open_page, case, tmp_path):
    page = open_page(390, "dark")  # the other screens are what it changes to
    for width, theme in SCREENS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        told = f"{case[0]}, {width} pixels, {theme}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, told
        count, faint = page.evaluate(FAINT)
        assert count > 10, told
        assert faint == [], told
        for canvas in page.locator("canvas").all():
            if canvas.is_visible():
                pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("L"), dtype=float)
                assert pixels.std() > 3, told
        for mark in page.locator(".chart .mark").all():
            box = mark.bounding_box()
            assert box["width"] == box["height"], f"{told}: the dot of a curve is round"
        keep_pictures(page, tmp_path / f"{width}-{theme}", 1 if case[0] in SLOW else None)
    assert page.problems == []


def keep_pictures(page, stem, most):
    """Pictures of a page from its top on, in pieces: Chromium repeats itself in one that is higher than 8192 pixels."""
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"]
    for number, top in enumerate(list(range(0, height, PIECE))[:most]):
        clip = {"x": 0, "y": top, "width": width, "height": min(PIECE, height - top) if most is None else 900}
        path = f"{stem}-{number}.jpg"
        page.screenshot(path=path, type="jpeg", quality=60, full_page=True, clip=clip)


def test_pictures_load_and_say_what_they_show_and_tab_reaches_every_control(open_page, case):
    page = open_page(1280, "light")
    assert page.evaluate("[...document.images].every((i) => i.hasAttribute('alt'))")
    silent = """[...document.images].filter((i) => !i.alt && i.checkVisibility() && !i.closest('.bar')).length"""
    assert page.evaluate(silent) == 0  # the label and the ticks of a colour bar stand beside it
    assert page.evaluate("[...document.images].filter((i) => i.currentSrc).every((i) => i.naturalWidth > 0)")
    wanted = page.evaluate(TABBED)
    assert wanted > 0
    for _ in range(2 * wanted + 10):
        page.keyboard.press("Tab")
        assert page.evaluate(STEP) == "", "the focus cannot be seen"
    assert page.evaluate(LEFT) == []
    assert page.problems == []
