"""``medwave view``: results in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medwave.cli.options import with_options
from medwave.workflows.options_view import ViewOptions


@with_options(ViewOptions)
def view(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR", help="Folder of a registration, reconstruction, cohort, template or evaluation."
        ),
    ],
    *,
    options: ViewOptions,
) -> None:
    """Show a folder of results in the browser, on this machine only, until Ctrl-C.

    Marks given on the page of a cohort are saved to qc.csv in its folder.
    """
    import threading
    import webbrowser

    from medwave.workflows.view import view, write_volume_page

    if options.page:
        typer.echo(f"page: {write_volume_page(folder)}")
        return
    with view(folder, options) as server:
        typer.echo(f"view: {server.address}")
        typer.echo("medwave: Ctrl-C ends it", err=True)
        if options.browser:  # in a thread: a browser in the terminal would hold up the server it asks
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("medwave: ended", err=True)
