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
        "score_trace": "medwave.metrics.neurons",
        "summarise": "medwave.metrics.neurons",
        "largest_component_recall": "medwave.metrics.neurons",
        "TraceScores": "medwave.metrics.neurons",
        "Summary": "medwave.metrics.neurons",
        "tree_distances": "medwave.metrics.neuron_distances",
        "TreeDistances": "medwave.metrics.neuron_distances",
        "nearest_on_tree": "medwave.metrics.neuron_distances",
        "sample_distances": "medwave.metrics.neuron_distances",
        "tolerance_score": "medwave.metrics.neuron_matching",
        "tolerance_curve": "medwave.metrics.neuron_matching",
        "one_to_one_score": "medwave.metrics.neuron_matching",
        "path_score": "medwave.metrics.neuron_matching",
        "Score": "medwave.metrics.neuron_matching",
        "ToleranceScore": "medwave.metrics.neuron_matching",
        "simplified_diadem": "medwave.metrics.neuron_diadem",
        "Diadem": "medwave.metrics.neuron_diadem",
        "cl_dice": "medwave.metrics.neuron_masks",
        "ClDice": "medwave.metrics.neuron_masks",
        "voxel_scores": "medwave.metrics.neuron_masks",
        "VoxelScores": "medwave.metrics.neuron_masks",
        "betti0_error": "medwave.metrics.neuron_masks",
        "skeletonize": "medwave.metrics.neuron_masks",
    },
)
