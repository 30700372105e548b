"""Options that commands share, and those made from the fields of an options dataclass, so that both always agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made when absent.")]


def file_option(name: str, text: str) -> Any:
    """An option that takes one file."""
    return Annotated[Optional[Path], typer.Option(name, help=text)]  # noqa: UP045  typer needs the old form


def files_option(name: str, text: str) -> Any:
    """An option that takes a file and may be repeated."""
    return Annotated[Optional[list[Path]], typer.Option(name, help=f"{text} May be repeated.")]  # noqa: UP045


def with_options(options_class: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of a dataclass; the command receives them as its argument ``options``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]

        def run(**values: Any) -> None:
            chosen = {f.name: _plain(values.pop(f.name)) for f in fields(options_class)}
            command(**values, options=options_class(**chosen))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        made = [_parameter(f) for f in fields(options_class)]
        run.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own + made}
        return run

    return decorate


def _parameter(field: Any) -> inspect.Parameter:
    kind: Any = type(field.default)
    if field.metadata["choices"]:
        kind = Enum(field.name.title(), {c: c for c in field.metadata["choices"]}, type=str)
    name = "--" + (field.metadata["name"] or field.name).replace("_", "-")
    flag = f"{name}/--no-{name[2:]}" if kind is bool else name
    annotation = Annotated[kind, typer.Option(flag, help=field.metadata["help"], show_default=True)]
    default = kind(field.default) if field.metadata["choices"] else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
