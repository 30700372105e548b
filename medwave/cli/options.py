"""Options that commands share, and those made from the fields of an options dataclass, so that both always agree."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

import typer

from medwave.core.errors import InputError
from medwave.core.files import check_output, input_file
from medwave.core.optional import require

OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made when absent.")]

VOLUME_KINDS = "TIFF, folder of slices, v3draw, v3dpbd, OME-Zarr (also s3://...), NIfTI, NRRD or MHA volume."

VOLUME = Annotated[str, typer.Argument(metavar="VOLUME", help=VOLUME_KINDS)]  # a Path would take a slash from a URL

CLUSTER = Annotated[
    Optional[str],  # noqa: UP045  typer needs the old form
    typer.Option(
        "--cluster",
        metavar="WHERE",
        help="Work on many processes by Dask: local, local:N, tcp://HOST:PORT of a scheduler, or slurm:FILE.yaml "
        "(pbs, lsf) for jobs of a queue.",
    ),
]

DRY_RUN = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what it takes: tasks, bytes, memory, and hours from a timed probe."),
]

JSON = Annotated[
    Optional[str],  # noqa: UP045  typer needs the old form
    typer.Option("--json", metavar="FILE", help="Also write everything as JSON; - prints it in place of the table."),
]


def check_json(target: str | None, values: Iterable[Any], *, folder: Path | None = None) -> None:
    """Refuse now, before long work, a file for ``--json`` that could not be written at its end.

    Args:
        target: what ``--json`` says.
        values: of all other options and arguments of the command: the files among them must not be replaced.
        folder: for the results, which the command makes.
    """
    if target in (None, "-"):
        return
    within = Path(target).resolve().parent
    if folder is not None and not within.exists() and within.is_relative_to(folder.resolve()):
        return
    given = [each for value in values for each in (value if isinstance(value, list) else [value])]
    named = [each for each in given if isinstance(each, str | Path)]
    check_output(target, *filter(os.path.exists, named))  # no error for text that is too long for a name


def wants_table(value: Any, target: str | None) -> bool:
    """Write or print JSON where ``--json`` asks for it; whether a table is still to be shown."""
    from medwave.core.files import json_text, write_text

    if target == "-":
        typer.echo(json_text(value), nl=False)
    elif target is not None:
        write_text(target, json_text(value))
    return target != "-"


def file_option(name: str, text: str) -> Any:
    """An option that takes one file."""
    return Annotated[Optional[Path], typer.Option(name, help=text)]  # noqa: UP045  typer needs the old form


WINET = file_option(
    "--weights",
    "Weights of a WiNet, from whose prediction the refinement starts: a file (safetensors), or brain, which comes with "
    "medwave. A file of that name comes first.",
)


def files_option(name: str, text: str) -> Any:
    """An option that takes a file and may be repeated."""
    return Annotated[Optional[list[Path]], typer.Option(name, help=f"{text} May be repeated.")]  # noqa: UP045


def three_numbers(text: str) -> tuple[float, float, float]:
    """Numbers along z, y, x from ``"2,0.5,0.5"``."""
    return _three(text, float, "numbers")


def three_whole_numbers(text: str) -> tuple[int, int, int]:
    """Whole numbers along z, y, x from ``"32,64,64"``."""
    return _three(text, int, "whole numbers")


def _three(text: str | tuple[Any, ...], number: Callable[[Any], Any], name: str) -> tuple[Any, Any, Any]:
    try:
        z, y, x = map(number, text.split(",") if isinstance(text, str) else text)  # defaults come as they are
    except (TypeError, ValueError):  # one number in a configuration is none to iterate over
        raise typer.BadParameter(f"three {name} z,y,x separated by commas are needed, got {text!r}") from None
    return z, y, x


def config_option(options_class: type) -> Any:
    """``--config FILE``: a YAML file with a value for any of the options; the command line overrides it."""

    def load(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            known = {f.name for f in fields(options_class)}
            context.default_map = {**(context.default_map or {}), **_read_config(path, known)}
        return path

    text = "YAML file with values of the options (underscores in their names); the command line overrides it."
    return Annotated[Optional[Path], typer.Option("--config", callback=load, is_eager=True, help=text)]  # noqa: UP045


def _read_config(path: Path, known: set[str]) -> dict[str, Any]:
    yaml = require("yaml", extra="train", purpose="reading a configuration")
    try:
        values = yaml.safe_load(input_file(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a configuration maps options to values, one `name: value` a line")
    if strangers := sorted(str(name) for name in values.keys() - known):
        raise InputError(f"{path}: no option is called {', '.join(strangers)}; there are {', '.join(sorted(known))}")
    joined = {name: ",".join(map(str, v)) if isinstance(v, list) else v for name, v in values.items()}
    return {name: value for name, value in joined.items() if value is not None}


def with_options(
    options_class: type, *, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of a dataclass; the command receives them as its argument ``options``.

    Fields that have no say in the command are named in ``without``; they keep their defaults.
    """
    taken = [f for f in fields(options_class) if f.name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]

        def run(**values: Any) -> None:
            others = [value for name, value in values.items() if name != "json"]
            check_json(values.get("json"), others, folder=values.get("output"))
            chosen = {f.name: _plain(values.pop(f.name)) for f in taken}
            command(**values, options=options_class(**chosen))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        kinds = get_type_hints(options_class)
        made = [_parameter(f, kinds[f.name]) for f in taken]
        run.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own + made}
        return run

    return decorate


def _parameter(field: Any, kind: Any) -> inspect.Parameter:
    plain = next((k for k in get_args(kind) if k is not NoneType), kind) if field.default is None else kind
    more: dict[str, Any] = {}
    if get_origin(plain) is tuple:
        parser = three_whole_numbers if get_args(plain)[0] is int else three_numbers
        plain, more = Any, {"parser": parser, "metavar": "Z,Y,X"}
    if field.metadata["choices"]:
        plain = Enum(field.name.title(), {c: c for c in field.metadata["choices"]}, type=str)
    name = "--" + (field.metadata["name"] or field.name).replace("_", "-")
    flag = f"{name}/--no-{name[2:]}" if plain is bool else name
    wanted = Optional[plain] if field.default is None else plain  # noqa: UP045  typer needs the old form
    annotation = Annotated[wanted, typer.Option(flag, help=field.metadata["help"], show_default=True, **more)]
    default = plain(field.default) if field.metadata["choices"] else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
