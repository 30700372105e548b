"""The ``medwave`` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer

from medwave import __version__
from medwave.cli import (
    cohort,
    export,
    images,
    networks,
    neurons,
    pipelines,
    recognition,
    register,
    train,
    transform_files,
    transforms,
    view,
)
from medwave.core.errors import MedwaveError

_INTERRUPTED = 130
_OBJECTS_BETWEEN_COLLECTIONS = 100_000  # of 700 imports alone would search all objects for cycles for 0.2 s
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LARGE_PAGES = ("THP_MEM_ALLOC_ENABLE", "1")
"""Torch then asks Linux for pages of 2 MB: clearing small ones took 0.4 of the CPU seconds of a segmentation."""
_ClickError: Any = typer.BadParameter.__mro__[1]  # errors of usage; newer typer carries its own copy of click

app = typer.Typer(
    name="medwave",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Wavelet deep learning for imaging: register brains, trace neurons, tell identities apart.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
demo = typer.Typer(no_args_is_help=True, help="Run a main job on a sample made on the spot.")
app.add_typer(demo, name="demo")
app.command("register")(register.register)
app.command("batch")(cohort.batch)
app.command("propagate-labels")(cohort.propagate_labels)
app.command("template")(cohort.template)
app.command("view")(view.view)
app.command("apply")(transforms.apply)
app.command("evaluate")(transforms.evaluate)
app.command("convert-transform")(transform_files.convert_transform)
app.command("compose")(transform_files.compose)
app.command("invert")(transform_files.invert)
app.command("jacobian")(transform_files.jacobian)
app.command("export")(export.export)
app.command("segment")(networks.segment)
app.command("reconstruct")(networks.reconstruct)
app.command("convert-volume")(networks.convert_volume)
app.command("trace")(neurons.trace)
app.command("score")(neurons.score)
app.add_typer(neurons.swc, name="swc")
app.add_typer(train.train, name="train")
train.train.command("recognise")(recognition.recognise)
app.add_typer(pipelines.pipelines, name="pipelines")
app.command("embed")(recognition.embed)
app.command("verify")(recognition.verify)
app.command("identify")(recognition.identify)
app.command("evaluate-classifier")(images.evaluate_classifier)
app.command("evaluate-segmenter")(images.evaluate_segmenter)
app.command("evaluate-detector")(images.evaluate_detector)
train.train.command("classify")(images.train_classify)
train.train.command("segment")(images.train_segment)
train.train.command("detect")(images.train_detect)
demo.command("brains")(register.demo_brains)
demo.command("neuron")(networks.demo_neuron)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medwave {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; an error that a user can cause is one line and exit code 2."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)  # Python's end would search all objects for cycles three times: 0.2 s
    os.environ.setdefault(*_LARGE_PAGES)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are not UTF-8
    try:
        with _interrupts_repeated():
            code = app(standalone_mode=False)
    except MedwaveError as error:
        _fail(str(error))
    except _ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(error.exit_code) from None
        command = error.ctx.command_path if error.ctx else "medwave"
        _fail(f"{error.format_message().rstrip('.')}; see {command} --help")
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        if error.filename is None:  # of files that medwave writes it is a MedwaveError
            sys.stdout = None  # else what is left is tried again at the end
        _fail(f"{error.filename or 'stdout'}: cannot be written ({error.strerror}); check the free space")
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        typer.echo("medwave: interrupted; nothing half-written was left", err=True)
    raise SystemExit(code or 0)


@contextlib.contextmanager
def _interrupts_repeated() -> Iterator[None]:
    """Send an interrupt again that was swallowed, as numba does while it loads a compiled loop."""
    before = sys.unraisablehook

    def look(lost: Any) -> None:
        if lost.exc_type is not KeyboardInterrupt:
            return before(lost)
        again = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        return again.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before


def _fail(message: str) -> NoReturn:
    typer.echo(f"medwave: error: {' '.join(message.split())}", err=True)
    raise SystemExit(2) from None
