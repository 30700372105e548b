"""Floor 4: pages that a person reads: figures (numpy and Pillow) and self-contained HTML (jinja2)."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "DiceScore": "medwave.reports.registration",
        "FigureOfMerit": "medwave.reports.registration",
        "OutputFile": "medwave.reports.registration",
        "RegistrationReport": "medwave.reports.registration",
        "Stage": "medwave.reports.registration",
        "write_registration_report": "medwave.reports.registration",
    },
)
