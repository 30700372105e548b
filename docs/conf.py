"""How the documentation is built: Markdown by myst-parser, the reference by autodoc, some pages made at build time.

`make docs` builds it with warnings as errors. Made at build time (:mod:`generate_pages`): the reference, from what each
room exports; the page of commands, from the commands themselves; the benchmark pages, from benchmarks/results; the
model cards. No page is fetched from elsewhere and no link to elsewhere is followed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "benchmarks")]
warnings.filterwarnings("ignore", category=DeprecationWarning)

from medwave import __version__  # noqa: E402

project = "medwave"
author = "The medwave developers"
copyright = "The medwave developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "README.md"]
templates_path: list[str] = []
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!medwave\b).*"),  # names of other packages: their inventories are not fetched
    ("py:.*", r"medwave\..*\._.*"),  # bases that only share code
    ("py:.*", r"medwave\.(workflows|engine|core|cli|scale)\..*"),  # not all of what passes between rooms has a page
    ("py:mod", r"medwave\..*"),  # modules have no pages of their own, their names have
    ("py:class", r"medwave\..*\.(CubeRow|Nearest|Samples|Network|Chapter|Embeddings|Record|LearnedKernels|Change)"),
    ("py:(class|func)", r"medwave\..*\.(StoredField|stored_field|BrainFolder)"),
    ("py:(data|func)", r"medwave\..*\.(IGNORE|STEMS|automatic_threshold)"),
]

html_theme = "furo"
html_title = "medwave"
html_static_path = ["_static"]
html_css_files = ["medwave.css"]
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["ref.python"]  # fields of one name in several classes

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Make the generated pages before any page is read."""
    from generate_pages import write_pages

    app.connect("builder-inited", lambda application: write_pages(Path(application.srcdir) / "generated"))
