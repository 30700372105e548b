"""Floor 3: networks and their weight files. A model knows tensors only: no files of images, no training data."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "WiNet": "medwave.models.winet",
        "winet_diff": "medwave.models.winet",
        "FibreNet": "medwave.models.waveunet",
        "WaveUNet": "medwave.models.waveunet",
        "BaselineUNet": "medwave.models.waveunet",
        "fibre_network": "medwave.models.waveunet",
        "network_names": "medwave.models.waveunet",
        "neuron_segnet": "medwave.models.waveunet",
        "neuron_unet_v1": "medwave.models.waveunet",
        "neuron_unet_v2": "medwave.models.waveunet",
        "FaceNet": "medwave.models.faces",
        "IResNet": "medwave.models.faces",
        "WaveIResNet": "medwave.models.faces",
        "WeightsInfo": "medwave.models.weights",
        "load_weights": "medwave.models.weights",
        "mean_network": "medwave.models.weights",
        "open_network": "medwave.models.weights",
        "read_foreign_checkpoint": "medwave.models.weights",
        "read_weights_info": "medwave.models.weights",
        "shipped_weights": "medwave.models.weights",
        "save_weights": "medwave.models.weights",
    },
)
