"""Floor 6: what napari reads and writes through medwave, by the manifest ``napari.yaml`` (npe2).

napari finds the manifest by the entry point ``napari.manifest`` and imports a module here when a file of its kind is
opened; nothing here imports napari.

Conventions
    A layer is ``(data, arguments, kind)``. Axes are (z, y, x). World coordinates are micrometres where the file, or
    the segmentation beside a tree, tells the voxel size, and voxels elsewhere; the centre of the first voxel is the
    origin, in napari as in SWC files of medwave.
"""
