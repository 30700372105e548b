"""Floor 3: what training and refinement minimise."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "LocalNCC": "medwave.losses.registration",
        "GlobalMI": "medwave.losses.registration",
        "MINDSSC": "medwave.losses.registration",
        "Smoothness": "medwave.losses.registration",
        "LabelOverlap": "medwave.losses.overlap",
        "VoxelCrossEntropy": "medwave.losses.segmentation",
        "SoftDice": "medwave.losses.segmentation",
        "SoftClDice": "medwave.losses.segmentation",
        "SkeletonRecall": "medwave.losses.segmentation",
        "FibreLoss": "medwave.losses.segmentation",
        "soft_skeleton": "medwave.losses.segmentation",
        "IGNORE_LABEL": "medwave.losses.segmentation",
        "SoftmaxLoss": "medwave.losses.recognition",
        "CosFaceLoss": "medwave.losses.recognition",
        "ArcFaceLoss": "medwave.losses.recognition",
        "UnifiedBCELoss": "medwave.losses.recognition",
        "UCELoss": "medwave.losses.recognition",
        "S2SSoftmaxLoss": "medwave.losses.recognition",
        "S2SBCELoss": "medwave.losses.recognition",
        "USSLoss": "medwave.losses.recognition",
        "UniTSFaceLoss": "medwave.losses.recognition",
        "EPLLoss": "medwave.losses.recognition",
        "ECLoss": "medwave.losses.recognition",
    },
)
