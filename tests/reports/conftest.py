"""A real browser for the tests of the pages: Debian's Chromium, drawing in software."""

import shutil

import pytest

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WITH_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WITHOUT_WEBGL = ["--disable-3d-apis"]


@pytest.fixture(scope="session")
def playwright_api():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def launch(playwright_api):
    """Start a Chromium with further flags, once for each set of them."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    browsers = {}

    def start(flags):
        key = tuple(flags)
        if key not in browsers:
            browsers[key] = playwright_api.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        return browsers[key]

    yield start
    for browser in browsers.values():
        browser.close()


@pytest.fixture
def visit(launch):
    """Open an address; ``page.problems`` collects errors, warnings and requests to what is not ``allowed``."""
    contexts = []

    def load(address, *, flags=WITH_WEBGL, allowed=("file:", "data:"), **options):
        context = launch(flags).new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda m: page.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.on(
            "request",
            lambda r: None if r.url.startswith(allowed) else page.problems.append(r.url),
        )
        page.goto(address, timeout=120_000)  # drawing in software on a busy machine takes its time
        return page

    yield load
    for context in contexts:
        context.close()
