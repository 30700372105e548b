"""Floor 4: datasets that feed networks. An item depends on the seed and its index alone, so a run can be resumed."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "BoxItems": "medwave.data.boxes",
        "BrainPairs": "medwave.data.brain_images",
        "read_brain_folder": "medwave.data.brain_images",
        "BoxedImages": "medwave.data.boxes",
        "read_boxed": "medwave.data.boxes",
        "synthetic_boxes": "medwave.data.boxes",
        "write_boxed": "medwave.data.boxes",
        "ClassifiedImages": "medwave.data.images",
        "ImageItems": "medwave.data.image_items",
        "SegmentedImages": "medwave.data.segmented_images",
        "read_classified": "medwave.data.images",
        "read_segmented": "medwave.data.segmented_images",
        "AxonCubes": "medwave.data.neurons",
        "ArraySet": "medwave.data.identities",
        "FaceItems": "medwave.data.face_items",
        "IdentitySet": "medwave.data.identities",
        "LabelMapPairs": "medwave.data.label_maps",
        "read_label_maps": "medwave.data.label_maps",
        "Mixture": "medwave.data.neurons",
        "NeuronCubes": "medwave.data.neuron_cubes",
        "SyntheticNeurons": "medwave.data.neurons",
        "PairSet": "medwave.data.pair_set",
        "open_identities": "medwave.data.identities",
        "open_pairs": "medwave.data.pair_set",
        "read_axon_cubes": "medwave.data.axons",
    },
)
