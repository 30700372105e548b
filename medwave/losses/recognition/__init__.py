"""Losses that teach a network to recognise: classes by prototypes, by stored samples, or by one threshold for all.

Every loss is called with features and labels and gives its total with named parts (:class:`LossParts`); see
:mod:`medwave.losses.recognition.interface` for what all of them keep to.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "LossParts": "medwave.losses.recognition.interface",
        "RecognitionLoss": "medwave.losses.recognition.interface",
        "SoftmaxLoss": "medwave.losses.recognition.margins",
        "CosFaceLoss": "medwave.losses.recognition.margins",
        "ArcFaceLoss": "medwave.losses.recognition.margins",
        "UnifiedBCELoss": "medwave.losses.recognition.uniform",
        "UCELoss": "medwave.losses.recognition.uniform",
        "ideal_bias": "medwave.losses.recognition.uniform",
        "FeatureMemory": "medwave.losses.recognition.memory",
        "USSLoss": "medwave.losses.recognition.sample_to_sample",
        "S2SSoftmaxLoss": "medwave.losses.recognition.sample_to_sample",
        "S2SBCELoss": "medwave.losses.recognition.sample_to_sample",
        "UniTSFaceLoss": "medwave.losses.recognition.sample_to_sample",
        "EPLLoss": "medwave.losses.recognition.prototypes",
        "ECLoss": "medwave.losses.recognition.explainable",
    },
)
