"""Floor 3: from a bright volume to a tree, and operations on trees.

A tree is a :class:`medwave.core.tree.Tree`: nodes at x y z with parents by index, in voxels or micrometres.
"""

from medwave.core.lazy import exports

_TREE = "medwave.tracing.tree"
_PATHS = "medwave.core.tree_paths"
_ALIGNMENT = "medwave.tracing.alignment"
_VOXELS = "medwave.tracing.voxels"

__getattr__, __dir__ = exports(
    __name__,
    {
        "trace": "medwave.tracing.tracer",
        "TraceOptions": "medwave.tracing.options",
        "bridge_gaps": "medwave.tracing.bridge",
        "GreyVoxels": _VOXELS,
        "VoxelsInMemory": _VOXELS,
        "VoxelsInTiles": _VOXELS,
        "Alignment": _ALIGNMENT,
        "check_alignment": _ALIGNMENT,
        "BranchTable": _TREE,
        "branch_table": _TREE,
        "crop": _TREE,
        "drop_duplicates": _TREE,
        "flip_y": _TREE,
        "join": _TREE,
        "keep_components": _TREE,
        "merge": _TREE,
        "one_type_per_branch": _TREE,
        "path_lengths": _TREE,
        "reroot": _TREE,
        "scale": _TREE,
        "sort_tree": _TREE,
        "split": _TREE,
        "translate": _TREE,
        "densify": _PATHS,
        "resample": _PATHS,
        "topology": _PATHS,
        "unbranched_paths": _PATHS,
    },
)
