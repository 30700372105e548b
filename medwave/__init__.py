"""medwave: wavelet deep learning for volumetric imaging.

Daily names are here; each room (``medwave.wavelets``, ``medwave.fields``, ...) has the rest. Importing medwave
imports nothing heavy: a name brings its module on first use.
"""

from medwave.core.lazy import exports

__version__ = "0.1.0"

__getattr__, __dir__ = exports(
    __name__,
    {
        "DWT": "medwave.wavelets",
        "IDWT": "medwave.wavelets",
        "DWTLow": "medwave.wavelets",
        "register": "medwave.workflows.register",
        "apply_transform": "medwave.workflows.apply",
        "convert_transform": "medwave.workflows.transform_files",
        "compose_transforms": "medwave.workflows.transform_files",
        "invert_transform": "medwave.workflows.transform_files",
        "jacobian_map": "medwave.workflows.transform_files",
        "build_template": "medwave.workflows.template",
        "evaluate": "medwave.workflows.evaluate",
        "segment": "medwave.workflows.segment",
        "reconstruct": "medwave.workflows.reconstruct",
        "embed": "medwave.workflows.recognise",
        "verify": "medwave.workflows.recognise",
        "identify": "medwave.workflows.recognise",
    },
)
