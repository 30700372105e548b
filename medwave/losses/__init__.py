"""Floor 3: what training and refinement minimise."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "LocalNCC": "medwave.losses.registration",
        "GlobalMI": "medwave.losses.registration",
        "MINDSSC": "medwave.losses.registration",
        "Smoothness": "medwave.losses.registration",
    },
)
