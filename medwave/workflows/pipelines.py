"""Recipes: MONAI bundles that call medwave's own functions. They come with the package and can be copied and run.

A recipe is a folder ``NAME/{configs,docs}``: ``configs/metadata.json``, configurations that MONAI runs (those with a
``run`` entry), and YAML files of options for ``medwave train ... --config``. Configurations are code: they name Python
functions to call, so run only those that you trust.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from medwave.core.errors import InputError, MedwaveError, OutputError
from medwave.core.files import StrPath, input_file
from medwave.core.optional import require

_PACKAGE = Path(__file__).resolve().parents[1]
_OPTION_MODULES = ("options", "options_neurons", "image_options", "recognition_options", "train_options")


@dataclass(frozen=True)
class Pipeline:
    """A recipe.

    Attributes:
        name: of its folder.
        title, description: what it does.
        configs: names of the configurations that can be run.
        folder: where it lies.
    """

    name: str
    title: str
    description: str
    configs: tuple[str, ...]
    folder: Path


def pipelines_folder() -> Path:
    """Where the recipes lie: inside the installed package, or beside it in a checkout.

    Raises:
        InputError: when they are in neither place.
    """
    for folder in (_PACKAGE / "_shipped" / "pipelines", _PACKAGE.parent / "pipelines"):
        if folder.is_dir():
            return folder
    raise InputError("the recipes did not come with this installation of medwave; install the wheel, or use a checkout")


def list_pipelines() -> list[Pipeline]:
    """All recipes by name."""
    found = []
    for path in sorted(pipelines_folder().glob("*/configs/metadata.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        configs = tuple(sorted(p.stem for p in path.parent.glob("*.yaml") if _can_run(p)))
        folder = path.parents[1]
        found.append(Pipeline(folder.name, about["name"], about["description"], configs, folder))
    return found


def find_pipeline(name: str) -> Pipeline:
    """A recipe by its name.

    Raises:
        InputError: no recipe has this name; the message lists those there are.
    """
    known = {pipeline.name: pipeline for pipeline in list_pipelines()}
    if name not in known:
        raise InputError(f"{name}: no recipe is called so; there are {', '.join(known)}")
    return known[name]


def copy_pipeline(name: str, folder: StrPath) -> Path:
    """Copy a recipe to be changed.

    Args:
        name: of the recipe.
        folder: the copy; it must not be there yet.

    Raises:
        InputError: no recipe has this name.
        OutputError: the folder is there already, or cannot be written.
    """
    source, target = find_pipeline(name).folder, Path(folder)
    if target.exists():
        raise OutputError(f"{target}: is there already; name a folder to be made")
    try:
        shutil.copytree(source, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another place") from error
    return target


def run_pipeline(name: str, config: str = "inference", changes: Mapping[str, Any] | None = None) -> str | None:
    """Run a configuration of a recipe by MONAI, as ``python -m monai.bundle run`` does; returns its entry ``output``.

    Args:
        name: of the recipe, or a folder that holds one.
        config: name of the configuration, without ``.yaml``.
        changes: entries of the configuration with other values; ``changes#epochs`` names one inside another.

    Raises:
        InputError: no such recipe, configuration or entry.
        MedwaveError: one of its leaves, which a function of the configuration raised.
    """
    require("yaml", extra="train", purpose="reading a recipe")
    folder = Path(name) if Path(name, "configs").is_dir() else find_pipeline(name).folder
    path = folder / "configs" / f"{config}.yaml"
    known = sorted(p.stem for p in path.parent.glob("*.yaml") if _can_run(p))
    if config not in known:
        raise InputError(f"{folder.name}: no configuration is called {config}; there are {', '.join(known)}")
    from monai.bundle import ConfigWorkflow

    logging.getLogger(ConfigWorkflow.__module__).setLevel(logging.ERROR)  # it tells of files that recipes do not use
    values = dict(changes or {})
    written = _read(path)
    if strangers := sorted({key.split("#")[0] for key in values} - written.keys()):
        entries = ", ".join(key for key in written if key not in ("imports", "run"))
        raise InputError(f"{path.name}: no entry is called {', '.join(strangers)}; there are {entries}")
    if "bundle_root" in written:
        values.setdefault("bundle_root", str(folder))
    workflow = ConfigWorkflow(
        config_file=str(path), meta_file=str(path.with_name("metadata.json")), logging_file=False, workflow_type=None,
        **values,
    )  # fmt: skip
    with _own_errors():
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    output = values.get("output", written.get("output"))
    return None if output is None else str(output)


def recipe_options(kind: str, bundle_root: StrPath, recipe: str, changes: Mapping[str, Any] | None = None) -> Any:
    """Options of a training from a YAML file of a recipe.

    Args:
        kind: name of an options dataclass, such as ``"TrainFibreOptions"``.
        bundle_root: folder of the recipe.
        recipe: name of the file in its ``configs``, without ``.yaml``.
        changes: options with other values than in the file.

    Raises:
        MissingFileError: there is no such file.
        InputError: an option is unknown or has an unusable value.
    """
    modules = (importlib.import_module(f"medwave.workflows.{name}") for name in _OPTION_MODULES)
    options_class = next(getattr(module, kind) for module in modules if hasattr(module, kind))
    path = Path(bundle_root) / "configs" / f"{recipe}.yaml"
    values = {**_read(path), **(changes or {})}
    known = {f.name for f in fields(options_class)}
    if strangers := sorted(values.keys() - known):
        raise InputError(f"{path}: no option is called {', '.join(strangers)}; there are {', '.join(sorted(known))}")
    kinds = get_type_hints(options_class)
    made = {}
    for name, value in values.items():
        try:
            if value is not None:
                made[name] = _of_kind(kinds[name], value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{path}: {name}: {_wanted(kinds[name])}, got {value!r}") from None
    return options_class(**made)


def _of_kind(kind: Any, value: Any) -> Any:
    """A value as an option wants it; YAML takes ``1e-3`` for a text and ``112`` for a number, whatever is wanted."""
    kind = next((k for k in get_args(kind) if k is not NoneType), kind) if isinstance(kind, UnionType) else kind
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(_of_kind(k, part) for k, part in zip(get_args(kind), parts, strict=True))
    if isinstance(value, bool) != (kind is bool) or isinstance(value, dict):
        raise ValueError
    if kind is str:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    number = value if isinstance(value, int) else float(value)
    if kind is int and number != int(number):
        raise ValueError
    return kind(number)


def _wanted(kind: Any) -> str:
    """What an option takes, in words."""
    if get_origin(kind) is tuple:
        return "three numbers"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return next(word for each, word in words.items() if each in (kind, *get_args(kind)))


def parse_changes(settings: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a mapping; a value is read as YAML reads it.

    Raises:
        InputError: a text without ``=``.
    """
    yaml = require("yaml", extra="train", purpose="reading a recipe")
    found = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: KEY=VALUE is needed, such as output=result")
        found[key] = yaml.safe_load(value)
    return found


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Raise an error of medwave itself in place of those that MONAI wraps around it."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MedwaveError):
                raise cause from None
            cause = cause.__cause__
        raise


def _can_run(path: Path) -> bool:
    return any(line.startswith("run:") for line in path.read_text(encoding="utf-8").splitlines())


def _read(path: Path) -> dict[str, Any]:
    yaml = require("yaml", extra="train", purpose="reading a recipe")
    values = yaml.safe_load(input_file(path).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe maps names to values, one `name: value` a line")
    return values
