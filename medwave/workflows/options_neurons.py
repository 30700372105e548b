"""Options of the jobs that run a fibre network, made as those of :mod:`medwave.workflows.options`."""

from __future__ import annotations

from dataclasses import dataclass

from medwave.core.errors import InputError
from medwave.workflows.options import TreeOptions, VolumeOptions, option


@dataclass(frozen=True)
class SegmentOptions(VolumeOptions):
    """How fibres are segmented."""

    threshold: float = option(0.5, "Voxels whose probability is above it are fibre, 0 to 1.")
    smallest_piece_voxels: int = option(
        0, "Leave pieces with fewer voxels out of the mask (a piece: voxels that touch by faces or edges).",
        name="smallest_piece",
    )  # fmt: skip
    region: str | None = option(
        None, "Part to segment, z0:z1,y0:y1,x0:x1 in voxels; a bound left out is that of the volume."
    )
    skip_empty: bool = option(
        True,
        "Pass over cubes of pure background: nowhere in them are 4x4x4 voxels on average brighter than the median of "
        "the volume by 0.7 of its noise.",
    )
    overlap: int = option(
        64,
        "Voxels that neighbouring cubes share. Where cubes lie then changes hardly anything; 32 is up to twice as fast "
        "and changes more.",
    )
    precision: str = option(
        "auto",
        "Numbers in the network; auto: bfloat16 where the device multiplies it natively, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = option("cpu", "Where the network runs: cpu, cuda, cuda:1, ...")
    threads: int = option(0, "CPU threads; 0 takes all that torch would use, or what a cluster gives to a task.")
    store: str | None = option(
        None,
        "Folder or URL (such as s3://bucket/run) for the images, in place of the output folder; in a batch each volume "
        "has a folder of its own in it.",
    )
    shard: int = option(
        512, "Voxels along each side of the parts that the tasks of a --cluster predict; see --dry-run."
    )
    sharded: bool = option(False, "Store each of these parts as one file of many chunks (NGFF 0.5).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold: a probability between 0 and 1, got {self.threshold}")
        if self.smallest_piece_voxels < 0:
            raise InputError(
                f"smallest_piece: a number of voxels or 0 for all pieces, got {self.smallest_piece_voxels}"
            )
        if not 0 <= self.overlap <= 128 or self.overlap % 16:
            raise InputError(f"overlap: 0 to 128 voxels in steps of 16, got {self.overlap}")
        if self.shard < 128 or self.shard % 128:
            raise InputError(f"shard: a multiple of 128 voxels, got {self.shard}")
        if self.threads < 0:
            raise InputError(f"threads: a number of threads or 0 for all, got {self.threads}")


@dataclass(frozen=True)
class ReconstructOptions(TreeOptions, SegmentOptions):
    """How a neuron is reconstructed: segmented, then traced. Lengths are in voxels of x."""

    trace_on: str = option(
        "both",
        "What is traced where the mask is fibre: probability; image: grey values above the background; or both: "
        "probability times the root of the grey values.",
        choices=("both", "probability", "image"),
    )


@dataclass(frozen=True)
class ConvertVolumeOptions(VolumeOptions):
    """How a volume becomes an OME-Zarr."""

    chunk: int = option(64, "Voxels along each side of a chunk, what is read at once.")
    shard: int = option(0, "Voxels along each side of a shard, a file of many chunks (NGFF 0.5); 0: a file per chunk.")
    ngff: str = option("0.4", "Version of the format without shards; more viewers read 0.4.", choices=("0.4", "0.5"))
    pyramid: str = option(
        "mean", "A voxel of a coarser level is the mean or the max of those below.", choices=("mean", "max")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 1:
            raise InputError(f"chunk: one voxel or more, got {self.chunk}")
        if self.shard < 0 or self.shard % self.chunk:
            raise InputError(f"shard: a multiple of the chunk of {self.chunk} voxels, or 0, got {self.shard}")
