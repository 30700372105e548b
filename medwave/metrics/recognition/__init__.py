"""How well a network recognises: classes at one threshold, pairs and identities, and channels that explain themselves.

Conventions
    Everything is numpy; torch tensors are taken too. A pair or class is accepted when its score is ABOVE the threshold.
    Results are exact, also when the data come in parts: what is stored are scores, never a histogram.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "uniform_accuracy": "medwave.metrics.recognition.classification",
        "UniformAccuracy": "medwave.metrics.recognition.classification",
        "ClassificationScores": "medwave.metrics.recognition.classification",
        "ClassificationAccuracies": "medwave.metrics.recognition.classification",
        "VerificationScores": "medwave.metrics.recognition.verification",
        "roc": "medwave.metrics.recognition.verification",
        "Roc": "medwave.metrics.recognition.verification",
        "auroc": "medwave.metrics.recognition.verification",
        "equal_error_rate": "medwave.metrics.recognition.verification",
        "EqualErrorRate": "medwave.metrics.recognition.verification",
        "tar_at_far": "medwave.metrics.recognition.verification",
        "TarAtFar": "medwave.metrics.recognition.verification",
        "folded_accuracy": "medwave.metrics.recognition.verification",
        "FoldedAccuracy": "medwave.metrics.recognition.verification",
        "cosine_pairs": "medwave.metrics.recognition.identification",
        "Identification": "medwave.metrics.recognition.identification",
        "rank1_identification": "medwave.metrics.recognition.identification",
        "ChannelPeaks": "medwave.metrics.recognition.explainability",
        "channel_peaks": "medwave.metrics.recognition.explainability",
        "location_instability": "medwave.metrics.recognition.explainability",
        "PartAssignment": "medwave.metrics.recognition.explainability",
        "part_assignment": "medwave.metrics.recognition.explainability",
        "PartOverlap": "medwave.metrics.recognition.explainability",
        "part_overlap": "medwave.metrics.recognition.explainability",
    },
)
