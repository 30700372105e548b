"""Floor 4: datasets that feed networks. An item depends on the seed and its index alone, so a run can be resumed."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "AxonCubes": "medwave.data.neurons",
        "Mixture": "medwave.data.neurons",
        "NeuronCubes": "medwave.data.neuron_cubes",
        "SyntheticNeurons": "medwave.data.neurons",
        "read_axon_cubes": "medwave.data.axons",
    },
)
