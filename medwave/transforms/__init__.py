"""Floor 3: MONAI transform chains that feed networks, and seeded generators of synthetic images and deformations."""

from medwave.core.lazy import exports

_BRAINS = "medwave.transforms.brains"
_GRID = "medwave.transforms.neuron_grid"
_LABELS = "medwave.transforms.neuron_labels"
_LABEL_IMAGES = "medwave.transforms.label_images"
_NEURONS = "medwave.transforms.neurons"
_SCENES = "medwave.transforms.box_scenes"
_RASTERISE = "medwave.transforms.rasterise"
_SYNTHETIC = "medwave.transforms.synthetic"

__getattr__, __dir__ = exports(
    __name__,
    {
        "BrainPair": _BRAINS,
        "brain_pair_chain": _BRAINS,
        "displacement_on_grid": _BRAINS,
        "from_metatensor": _BRAINS,
        "prepare_pair": _BRAINS,
        "to_metatensor": _BRAINS,
        "images_of_labels": _LABEL_IMAGES,
        "random_contrast": _LABEL_IMAGES,
        "strip_skull": _LABEL_IMAGES,
        "add_noise": _SYNTHETIC,
        "bias_field": _SYNTHETIC,
        "contrast_curve": _SYNTHETIC,
        "random_affine": _SYNTHETIC,
        "random_diffeomorphism": _SYNTHETIC,
        "random_velocity": _SYNTHETIC,
        "BoxScene": _SCENES,
        "box_scene": _SCENES,
        "TracedImage": _GRID,
        "crop_box": _GRID,
        "made_smaller": _GRID,
        "smaller_shape": _GRID,
        "with_noise": _GRID,
        "fibre_labels": _LABELS,
        "parse_boxes": _LABELS,
        "fibre_cube_chain": "medwave.transforms.fibre_chain",
        "Growth": _NEURONS,
        "Microscope": _NEURONS,
        "RenderedNeuron": _NEURONS,
        "grow_tree": _NEURONS,
        "random_growth": _NEURONS,
        "random_microscope": _NEURONS,
        "render_neuron": _NEURONS,
        "draw_centre_lines": _RASTERISE,
        "draw_tubes": _RASTERISE,
    },
)
