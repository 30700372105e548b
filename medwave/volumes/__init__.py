"""Floor 2: every file format and every fact about axes: volumes, transforms of ITK, FSL and FreeSurfer, points.

Volumes come and go as :class:`medwave.core.geometry.Volume` (array in file axis order, affine RAS+ mm);
displacements as ``(3, D, H, W)`` in voxels of their grid; matrices as 4x4 RAS+ mm; points as ``(N, 3)`` RAS+ mm.
ITK's LPS is known in this room only.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "FieldStep": "medwave.volumes.spatial",
        "Finding": "medwave.volumes.swc",
        "LazyVolume": "medwave.volumes.stack",
        "LinearStep": "medwave.volumes.spatial",
        "MicroscopyReader": "medwave.volumes.microscopy",
        "OmeZarrImage": "medwave.volumes.ome_zarr_write",
        "PairList": "medwave.volumes.pair_list",
        "PointTable": "medwave.volumes.points",
        "RecordFile": "medwave.volumes.record_file",
        "Series": "medwave.volumes.series",
        "SpatialTransform": "medwave.volumes.spatial",
        "build_pyramid": "medwave.volumes.ome_zarr_write",
        "canonical": "medwave.volumes.checks",
        "check_image": "medwave.volumes.checks",
        "doubtful_frame": "medwave.volumes.checks",
        "create_ome_zarr": "medwave.volumes.ome_zarr_write",
        "fill_level": "medwave.volumes.ome_zarr_write",
        "level_shapes": "medwave.volumes.ome_zarr_write",
        "m3z_command": "medwave.volumes.freesurfer",
        "nifti_bytes": "medwave.volumes.nifti",
        "open_stack": "medwave.volumes.open",
        "read_affine": "medwave.volumes.affine",
        "read_field": "medwave.volumes.displacement",
        "read_flirt": "medwave.volumes.fsl",
        "read_labels": "medwave.volumes.read",
        "read_lta": "medwave.volumes.freesurfer",
        "read_pair_bin": "medwave.volumes.pair_bin",
        "read_pair_list": "medwave.volumes.pair_list",
        "read_picture": "medwave.volumes.pictures",
        "read_points": "medwave.volumes.points",
        "read_series": "medwave.volumes.series",
        "read_swc": "medwave.volumes.swc",
        "read_swc_comments": "medwave.volumes.swc",
        "read_swc_units": "medwave.volumes.swc",
        "read_transform": "medwave.volumes.spatial",
        "read_volume": "medwave.volumes.read",
        "validate_swc": "medwave.volumes.swc",
        "write_affine": "medwave.volumes.affine",
        "write_composite": "medwave.volumes.composite",
        "write_field": "medwave.volumes.displacement",
        "write_flirt": "medwave.volumes.fsl",
        "write_fsl_field": "medwave.volumes.fsl",
        "write_inverse_composite": "medwave.volumes.composite",
        "write_lta": "medwave.volumes.freesurfer",
        "write_points": "medwave.volumes.points",
        "write_series": "medwave.volumes.series",
        "write_swc": "medwave.volumes.swc",
        "write_transform": "medwave.volumes.composite",
        "write_v3draw": "medwave.volumes.v3draw",
        "write_volume": "medwave.volumes.write",
    },
)
