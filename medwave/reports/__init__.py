"""Floor 4: pages that a person reads: figures (numpy and Pillow) and self-contained HTML (jinja2)."""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "ClassifierReport": "medwave.reports.images",
        "DetectorReport": "medwave.reports.detector",
        "ShownBoxes": "medwave.reports.box_plates",
        "write_detector_report": "medwave.reports.detector",
        "Overlay": "medwave.reports.image_plates",
        "Run": "medwave.reports.images",
        "SegmenterReport": "medwave.reports.images",
        "ShownImage": "medwave.reports.image_plates",
        "write_classifier_report": "medwave.reports.images",
        "write_segmenter_report": "medwave.reports.images",
        "DiceScore": "medwave.reports.registration",
        "FigureOfMerit": "medwave.reports.registration",
        "NeuronReport": "medwave.reports.neuron",
        "OutputFile": "medwave.reports.run_tables",
        "Projections": "medwave.reports.projections",
        "RegistrationReport": "medwave.reports.registration",
        "Stage": "medwave.reports.run_tables",
        "VerificationReport": "medwave.reports.verification",
        "project": "medwave.reports.projections",
        "write_neuron_report": "medwave.reports.neuron",
        "write_registration_report": "medwave.reports.registration",
        "write_verification_report": "medwave.reports.verification",
    },
)
