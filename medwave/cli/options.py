"""Options that commands share, and those made from the fields of an options dataclass, so that both always agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

import typer

OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made when absent.")]


def file_option(name: str, text: str) -> Any:
    """An option that takes one file."""
    return Annotated[Optional[Path], typer.Option(name, help=text)]  # noqa: UP045  typer needs the old form


def files_option(name: str, text: str) -> Any:
    """An option that takes a file and may be repeated."""
    return Annotated[Optional[list[Path]], typer.Option(name, help=f"{text} May be repeated.")]  # noqa: UP045


def three_numbers(text: str) -> tuple[float, float, float]:
    """Numbers along z, y, x from ``"2,0.5,0.5"``."""
    try:
        z, y, x = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"three numbers z,y,x separated by commas are needed, got {text!r}") from None
    return z, y, x


def with_options(options_class: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of a dataclass; the command receives them as its argument ``options``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]

        def run(**values: Any) -> None:
            chosen = {f.name: _plain(values.pop(f.name)) for f in fields(options_class)}
            command(**values, options=options_class(**chosen))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        kinds = get_type_hints(options_class)
        made = [_parameter(f, kinds[f.name]) for f in fields(options_class)]
        run.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own + made}
        return run

    return decorate


def _parameter(field: Any, kind: Any) -> inspect.Parameter:
    plain = next((k for k in get_args(kind) if k is not NoneType), kind) if field.default is None else kind
    more: dict[str, Any] = {}
    if get_origin(plain) is tuple:
        plain, more = Any, {"parser": three_numbers, "metavar": "Z,Y,X"}
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
