"""Floor 1: discrete wavelet transforms as fast, exact, differentiable torch operations in 1-D, 2-D and 3-D.

Functions: ``dwt``, ``idwt``, ``dwt_low``; modules: ``DWT``, ``IDWT``, ``DWTLow``; bands come as one tensor
``(N, C, 2 ** ndim, ...)``, see ``band_names`` and ``named_bands``. Several levels: ``wavedec``, ``waverec``, packets
``wpdec``, ``wprec``, undecimated ``swt``, ``iswt``. For networks: ``WaveletPool`` and its kin, ``shrinkage``,
``replace_downsampling``; learned filters: ``FilterBank``, ``LearnedDWT``, ``LearnedIDWT``.
Needs torch, numba and PyWavelets' filter tables.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "dwt": "medwave.wavelets.transform",
        "dwt_low": "medwave.wavelets.transform",
        "idwt": "medwave.wavelets.transform",
        "DWT": "medwave.wavelets.layers",
        "DWTLow": "medwave.wavelets.layers",
        "IDWT": "medwave.wavelets.layers",
        "band_names": "medwave.wavelets.filters",
        "named_bands": "medwave.wavelets.filters",
        "wavelet_names": "medwave.wavelets.filters",
        "Pyramid": "medwave.wavelets.multilevel",
        "frequency_order": "medwave.wavelets.multilevel",
        "max_levels": "medwave.wavelets.multilevel",
        "packet_names": "medwave.wavelets.multilevel",
        "wavedec": "medwave.wavelets.multilevel",
        "waverec": "medwave.wavelets.multilevel",
        "wpdec": "medwave.wavelets.multilevel",
        "wprec": "medwave.wavelets.multilevel",
        "HALVING_MODES": "medwave.wavelets.resampling",
        "WaveletPool": "medwave.wavelets.resampling",
        "WaveletShuffle": "medwave.wavelets.resampling",
        "WaveletUnshuffle": "medwave.wavelets.resampling",
        "WaveletUpsample": "medwave.wavelets.resampling",
        "Replacements": "medwave.wavelets.replacing",
        "replace_downsampling": "medwave.wavelets.replacing",
        "LearnedShrinkage": "medwave.wavelets.thresholds",
        "SHRINKAGES": "medwave.wavelets.thresholds",
        "shrinkage": "medwave.wavelets.thresholds",
        "FilterBank": "medwave.wavelets.trainable",
        "LearnedDWT": "medwave.wavelets.trainable",
        "LearnedIDWT": "medwave.wavelets.trainable",
        "STATIONARY_MODES": "medwave.wavelets.stationary",
        "iswt": "medwave.wavelets.stationary",
        "stationary_margin": "medwave.wavelets.stationary",
        "swt": "medwave.wavelets.stationary",
        "MODES": "medwave.wavelets.extension",
        "FILTER_ROLES": "medwave.wavelets.filters",
    },
)
