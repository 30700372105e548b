"""Pages that are made when the documentation is built, so that no name and no number is typed twice.

``reference/ROOM.md`` from what each room exports, ``commands.md`` from the commands, ``benchmarks/*.md`` from the
results in benchmarks/results (:mod:`benchmark_pages`), ``models/*.md`` from the cards beside the weights,
``pipelines.md`` from the recipes.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import benchmark_pages

ROOT = Path(__file__).resolve().parents[1]

ROOMS = (
    "wavelets", "fields", "cubes", "volumes", "transforms", "models", "losses", "metrics", "tracing", "data", "reports",
)  # fmt: skip
"""Rooms whose exports are documented, from the lowest floor up."""

DAILY = "The jobs, a function each, and the wavelet layers ``DWT``, ``IDWT`` and ``DWTLow`` of ``medwave.wavelets``."

EXTRA = {
    "core": {
        "medwave.core.geometry": ("Grid", "Volume"),
        "medwave.core.tree": ("Tree",),
        "medwave.core.tree_paths": ("Topology", "Paths"),
        "medwave.core.provenance": ("Stage",),
        "medwave.core.errors": (
            "MedwaveError", "InputError", "MissingFileError", "VolumeFormatError", "GeometryError", "OutputError",
            "DeviceError", "MissingPackageError", "MissingProgramError",
        ),
    },
    "medwave": {
        "medwave.workflows.register": ("Registration",),
        "medwave.workflows.apply": ("Moved",),
        "medwave.workflows.evaluate": ("Evaluation", "StructureScore", "FieldScore"),
        "medwave.workflows.segment": ("Segmentation",),
        "medwave.workflows.reconstruct": ("Reconstruction",),
        "medwave.workflows.recognise": ("Verification", "Identified"),
    },
    "losses": {"medwave.losses.recognition.interface": ("LossParts", "RecognitionLoss", "ClassHead")},
    "models": {"medwave.models.images.network": ("Common", "Classifier", "ChainClassifier")},
}  # fmt: skip
"""Page -> module -> names that users meet as arguments and results, though no room exports them."""


def write_pages(folder: Path) -> None:
    """Write all generated pages under a folder; a page whose text is unchanged keeps its file and its time."""
    pages = {"commands.md": commands_page(), **reference_pages(), **model_pages()}
    pages |= {f"benchmarks/{name}.md": text for name, text in benchmark_pages.pages().items()}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for stale in set(folder.rglob("*.md")) - {folder / name for name in pages}:
        stale.unlink()


def reference_pages() -> dict[str, str]:
    """A page per room and one for the daily names, with an index."""
    medwave = importlib.import_module("medwave")
    jobs = [name for name in _exports(medwave) if "workflows" in getattr(medwave, name).__module__]
    pages = {"reference/medwave.md": _module_page("medwave", jobs, DAILY)}
    for room in ROOMS:
        module = importlib.import_module(f"medwave.{room}")
        pages[f"reference/{room}.md"] = _module_page(f"medwave.{room}", _exports(module), inspect.getdoc(module) or "")
    pages["reference/core.md"] = "# Core and errors\n\nWhat every room hands around.\n"
    for page, modules in EXTRA.items():
        pages[f"reference/{page}.md"] += "".join(_directives(name, list(names)) for name, names in modules.items())
    pages["reference/options.md"] = options_page()
    toctree = "\n".join(Path(name).stem for name in pages)
    pages["reference/index.md"] = (
        "# Python reference\n\nEach page is a room of the package; arrays, axes and units are said at its head and in "
        f"each docstring.\n\n```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    )
    return pages


def _exports(module: Any) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _module_page(name: str, names: list[str], about: str) -> str:
    module = importlib.import_module(name)
    documented = [n for n in names if callable(getattr(module, n))]
    indented = "\n".join(f"    {line}".rstrip() for line in about.splitlines())
    head = f"# {name}\n\n```{{eval-rst}}\n.. module:: {name}\n   :no-index:\n\n.. container::\n\n{indented}\n```\n"
    return head + _directives(name, documented)


def _directives(module_name: str, names: list[str]) -> str:
    """autodoc directives for names, each under the place that defines it so that every link finds it."""
    module = importlib.import_module(module_name)
    lines = ["", "```{eval-rst}"]
    for name in names:
        kind = "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
        lines += [f".. {kind}:: {module_name}.{name}", ""]
    return "\n".join([*lines, "```", ""])


def options_page() -> str:
    """The options dataclasses as tables: field, default, meaning."""
    from dataclasses import fields, is_dataclass

    modules = ("options", "options_neurons", "options_cohort", "image_options", "recognition_options", "train_options")
    parts = [
        "# Options\n\nThe options of a job are one frozen dataclass, from which its command and its Python function "
        "are built: `medwave.register(..., radius=3)` and `medwave register ... --radius 3` are the same. They live in "
        "`medwave.workflows`.\n"
    ]
    for module_name in modules:
        module = importlib.import_module(f"medwave.workflows.{module_name}")
        for name, value in vars(module).items():
            if not (inspect.isclass(value) and is_dataclass(value)) or value.__module__ != module.__name__:
                continue
            rows = [
                f"| `{f.name}` | `{f.default!r}` | {_cell(f.metadata.get('help', ''))}{_choices(f)} |"
                for f in fields(value)
            ]
            table = "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])
            parts.append(f"## {name}\n\n{inspect.getdoc(value)}\n\n{table}\n")
    return "\n".join(parts)


def _choices(field: Any) -> str:
    choices = field.metadata.get("choices") or ()
    return f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\\[", "[")).replace("|", "\\|").replace("*", "\\*").strip()


def commands_page() -> str:
    """Every command with its arguments and options, as `--help` says them."""
    import typer

    from medwave.cli.app import app

    parts = [
        "# Commands\n\n`medwave --help` lists the commands; each has its own `--help`, which says what this page says. "
        "Errors that a user can cause are one line and exit code 2; an interrupted command ends with 130.\n"
    ]
    root = typer.main.get_command(app)
    for words, command in _walk(root, ("medwave",)):
        about = _cell((command.help or "").replace("\n\n", "<br><br>")).replace("<br><br>", "\n\n")
        parts.append(f"## {' '.join(words)}\n\n{about}\n\n{_parameters(command)}\n")
    return "\n".join(parts)


def _walk(command: Any, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [(words, command)]
    return [found for name, child in children.items() for found in _walk(child, (*words, name))]


def _parameters(command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar or parameter.name.upper()}`"
            default = ""
        else:
            flags = [*parameter.opts, *parameter.secondary_opts]
            name = ", ".join(f"`{flag}`" for flag in flags)
            default = "" if parameter.default in (None, False, ()) or callable(parameter.default) else parameter.default
            default = f"`{getattr(default, 'value', default)}`" if default != "" else ""
            default = "required" if parameter.required else default
        rows.append(f"| {name} | {default} | {_cell(parameter.help or '')} |")
    return "\n".join(["| argument or option | default | meaning |", "|---|---|---|", *rows])


def model_pages() -> dict[str, str]:
    """The cards that lie beside the shipped weights, with an index."""
    cards = sorted((ROOT / "medwave" / "models" / "shipped").glob("*.md"))
    pages = {f"models/{card.stem}.md": card.read_text(encoding="utf-8") for card in cards}
    toctree = "\n".join(card.stem for card in cards)
    pages["models/index.md"] = (
        "# Model cards\n\nWeights that come with medwave, each with what it was trained on, what it reaches and what "
        "it does not do. Registration needs none.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    )
    return pages
