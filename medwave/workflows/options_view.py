"""Options of looking at results in a browser."""

from __future__ import annotations

from dataclasses import dataclass

from medwave.core.errors import InputError
from medwave.workflows.options import option


@dataclass(frozen=True)
class ViewOptions:
    """How a folder of results is shown."""

    browser: bool = option(True, "Whether a browser is opened; the address is printed in any case.")
    page: bool = option(
        False,
        "Write viewer.html into the folder of a registration, one file with volumes of half the resolution, and end.",
    )
    port: int = option(0, "Port on this machine (127.0.0.1); 0 takes a free one.")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port: a number up to 65535, or 0 for a free one, got {self.port}")
