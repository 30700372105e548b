"""APP2 of Vaa3D as the tracer: a volume and a marker out, the command called, an SWC back.

Conventions
    Vaa3D gets 8-bit grey values (as :mod:`medwave.tracing` works on) without voxel size. A marker counts the first
    voxel as 1; the SWC that comes back counts it as 0, like ours. Rows stay in file order both ways.
    Arguments of ``-x vn2 -f app2 -p``: marker file, channel, threshold, down-sampling to 256 voxels, radius in the
    plane, grey-weighted distance, crossing gaps, shortest branch.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError, MissingProgramError
from medwave.core.files import write_text
from medwave.core.tree import UNDEFINED, Tree
from medwave.tracing.grey import automatic_threshold, to_grey
from medwave.tracing.options import TraceOptions
from medwave.volumes import read_swc, write_v3draw
from medwave.volumes.swc import LAST_STANDARD_TYPE

PROGRAMS = ("vaa3d", "Vaa3D", "Vaa3D-x", "vaa3d64")
"""Names by which the program is looked for."""

FILES = IMAGE, MARKER, RESULT = "volume.v3draw", "root.marker", "app2.swc"
"""What goes to it and comes from it."""

MARKER_HEADER = "##x,y,z,radius,shape,name,comment,color_r,color_g,color_b"


def find_vaa3d() -> str | None:
    """The program, where it is on the PATH."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def trace_with_vaa3d(volume: npt.NDArray[np.generic], folder: Path, options: TraceOptions) -> Tree:
    """Trace a volume (z, y, x) by Vaa3D; the files in between lie in ``folder`` and go when all went well.

    Kind, threshold, the first root and the shortest branch are handed on; one tree is what APP2 makes.

    Returns:
        The tree, x y z in voxels of the volume.

    Raises:
        MissingProgramError: when Vaa3D is not on the PATH; the message is the command to run, and its files stay.
        InputError: when it fails, or writes no usable tree; its files stay.
        OutputError: when the files cannot be written.
    """
    from medwave.workflows.run_folder import result_folder  # brings SimpleITK, which no other tracer needs

    with result_folder(folder):
        command = _prepared(volume, folder, options)
        program = find_vaa3d()
        shown = shlex.join(["vaa3d", *command])
        result = folder / RESULT
        if program is None:
            raise MissingProgramError(
                f"vaa3d is not on the PATH; put it there and repeat this, or run: {shown} && "
                f"{shlex.join(['medwave', 'swc', 'fix', str(result), '-o', 'tree.swc', '--units', 'voxels'])}"
            )
        result.unlink(missing_ok=True)
        done = subprocess.run([program, *command], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0 or not result.exists():
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise InputError(
                f"vaa3d made no tree (exit code {done.returncode}, it said: {said}); look into it with: {shown}"
            )
        tree = read_swc(result)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what else lies there is not ours
        folder.rmdir()
    kind = np.where(tree.kind <= LAST_STANDARD_TYPE, tree.kind, UNDEFINED)  # Vaa3D numbers colours there
    return Tree(tree.positions, tree.radius, tree.parent, kind)


def _prepared(volume: npt.NDArray[np.generic], folder: Path, options: TraceOptions) -> list[str]:
    """Write what Vaa3D reads; its arguments."""
    grey = to_grey(volume, options.kind, options.threshold)
    if options.kind == "mask" or volume.dtype == bool:
        level = 0.0
    elif options.threshold is not None:
        level = grey.scale.threshold_level(options.threshold)
    else:
        level = grey.scale.level(0.5) if options.kind == "probability" else automatic_threshold(grey.grey)
    image, marker = folder / IMAGE, "NULL"
    write_v3draw(image, grey.grey)
    if options.roots:
        z, y, x = (position + 1 for position in options.roots[0])
        marker = str(folder / MARKER)
        write_text(marker, f"{MARKER_HEADER}\n{x:g},{y:g},{z:g},0,1,,,255,0,0\n")
    parameters = [marker, "0", f"{int(level)}", "1", "1", "0", "0", f"{options.shortest_segment:g}"]
    return ["-x", "vn2", "-f", "app2", "-i", str(image), "-o", str(folder / RESULT), "-p", *parameters]
