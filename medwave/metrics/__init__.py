"""Floor 3: how good a result is, in numbers."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "dice": "medwave.metrics.registration",
        "surface_distances": "medwave.metrics.registration",
        "folding": "medwave.metrics.registration",
        "Folding": "medwave.metrics.registration",
        "log_jacobian_sd": "medwave.metrics.registration",
        "inverse_consistency_mm": "medwave.metrics.registration",
        "target_registration_error_mm": "medwave.metrics.registration",
    },
)
