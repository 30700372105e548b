"""One registration method in a process of its own. Started by ``registration.py``.

``python _registration_methods.py METHOD REQUEST`` reads a JSON request (``fixed``, ``moving``: images; ``affine``: 4x4
RAS+ mm, fixed to moving points; ``threads``; ``folder``: where to write) and leaves two files in the folder:

``field.npy``
    displacement u of the deformable part on the fixed grid, ``(3, D, H, W)`` float32, LPS mm, file axis order:
    the whole transform is ``T(x) = A(x + u(x))``.
``method.json``
    ``deformable_cpu_s``: CPU seconds of this process from both images and the affine in memory to u in memory (for
    medwave's whole command, which runs as a user runs it, its stages ``prepare`` and ``refine``).

The methods ``affine-medwave`` and ``affine-ants`` make the affine itself and leave ``affine.json`` (a 4x4 list).

Nothing but the method's own packages is imported, so that the cost of the process is the method's own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

GREEDY = "-m NCC 2x2x2 -n 60x30x10 -wp 0"  # -wp 0: the field is not rounded to tenths of a voxel when it is given out
ANTS = {"syn_metric": "CC", "syn_sampling": 2, "reg_iterations": (40, 20, 0), "random_seed": 1}
DEMONS = {"shrink": (4, 2, 1), "iterations": (60, 40, 20), "field_sigma_voxels": 1.0, "histogram_bins": 256}
ELASTIX = {"map": "bspline", "resolutions": 4, "grid_spacing_mm": 10.0, "WriteResultImage": "false"}

SETTINGS: dict[str, Any] = {
    "medwave": "register(fixed, moving, init=affine, affine='none'), default options otherwise",
    "medwave-command": "medwave register FIXED MOVING -o DIR, with its own affine, all files and the report",
    "medwave-command-fast": "the same with --preset fast",
    "medwave-command-accurate": "the same with --preset accurate",
    "greedy": GREEDY,
    "ants": {"type_of_transform": "SyNOnly", **ANTS},
    "demons": {"filter": "DiffeomorphicDemons", **DEMONS},
    "elastix": ELASTIX,
}
PACKAGES = {
    "medwave": "medwave",
    "medwave-command": "medwave",
    "medwave-command-fast": "medwave",
    "medwave-command-accurate": "medwave",
    "greedy": "picsl-greedy",
    "ants": "antspyx",
    "demons": "SimpleITK",
    "elastix": "itk-elastix",
}


class Stopwatch:
    """CPU and wall seconds of this process since it was made."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        cpu, wall = self._start
        return {"deformable_cpu_s": time.process_time() - cpu, "deformable_wall_s": time.perf_counter() - wall}


def run_medwave(request: dict[str, Any]) -> tuple[Field, dict[str, Any]]:
    """medwave's refinement through its public function, from the given affine."""
    import medwave
    from medwave.volumes import read_volume

    fixed, moving = (read_volume(request[role]) for role in ("fixed", "moving"))
    watch = Stopwatch()
    result = medwave.register(
        fixed, moving, init=np.asarray(request["affine"]), affine="none", threads=request["threads"]
    )
    whole = watch.read()["deformable_cpu_s"]
    stages = {stage.name: stage.cpu_s for stage in result.stages}
    ras = np.einsum("ij,j...->i...", fixed.grid.affine[:3, :3], result.displacement_voxels)
    costs = {"deformable_cpu_s": stages["prepare"] + stages["refine"], "function_cpu_s": whole, "stages_cpu_s": stages}
    return _lps(ras), costs


def run_greedy(request: dict[str, Any]) -> tuple[Field, dict[str, Any]]:
    """picsl-greedy; its matrix file is 4x4 RAS mm, fixed to moving points."""
    from picsl_greedy import Greedy3D

    fixed, moving = _read_itk(request)
    matrix = Path(request["folder"]) / "affine.txt"
    np.savetxt(matrix, np.asarray(request["affine"]))
    greedy = Greedy3D()
    watch = Stopwatch()
    greedy.execute(
        f"-d 3 -threads {request['threads']} -i fixed moving -it {matrix} {GREEDY} -o warp",
        fixed=fixed, moving=moving, warp=None,
    )  # fmt: skip
    costs = watch.read()
    return _field_of(greedy["warp"]), costs


def run_ants(request: dict[str, Any]) -> tuple[Field, dict[str, Any]]:
    """antspyx: symmetric normalisation driven by local cross-correlation."""
    import ants
    import SimpleITK as sitk

    folder = Path(request["folder"])
    fixed, moving = (ants.image_read(request[role]) for role in ("fixed", "moving"))
    sitk.WriteTransform(_itk_affine(request), str(folder / "affine.mat"))
    watch = Stopwatch()
    result = ants.registration(
        fixed, moving, "SyNOnly", initial_transform=str(folder / "affine.mat"), outprefix=str(folder / "ants_"), **ANTS
    )
    costs = watch.read()
    return _field_of(sitk.ReadImage(result["fwdtransforms"][0])), costs


def run_demons(request: dict[str, Any]) -> tuple[Field, dict[str, Any]]:
    """SimpleITK's diffeomorphic Demons on three scales, after matching of the histograms."""
    import SimpleITK as sitk

    fixed, moving = _read_itk(request)
    watch = Stopwatch()
    moving = sitk.Resample(moving, fixed, _itk_affine(request), sitk.sitkLinear, 0.0)
    moving = sitk.HistogramMatching(moving, fixed, DEMONS["histogram_bins"], 10, True)
    field = None
    for factor, iterations in zip(DEMONS["shrink"], DEMONS["iterations"], strict=True):
        a, b = (_shrink(image, factor) for image in (fixed, moving))
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(DEMONS["field_sigma_voxels"])
        if field is None:
            field = sitk.Image(a.GetSize(), sitk.sitkVectorFloat64)
            field.CopyInformation(a)
        else:
            field = sitk.Resample(field, a, sitk.Transform(), sitk.sitkLinear)
        field = demons.Execute(a, b, field)
    costs = watch.read()
    return _field_of(field), costs


def run_elastix(request: dict[str, Any]) -> tuple[Field, dict[str, Any]]:
    """itk-elastix: its own default map for B-splines, mutual information with a bending penalty."""
    import itk
    import SimpleITK as sitk

    fixed, moving = _read_itk(request)
    watch = Stopwatch()
    moving = sitk.Resample(moving, fixed, _itk_affine(request), sitk.sitkLinear, 0.0)
    parameters = itk.ParameterObject.New()
    defaults = parameters.GetDefaultParameterMap(ELASTIX["map"], ELASTIX["resolutions"], ELASTIX["grid_spacing_mm"])
    defaults["WriteResultImage"] = [ELASTIX["WriteResultImage"]]
    parameters.AddParameterMap(defaults)
    images = [_to_itk(image) for image in (fixed, moving)]
    elastix = itk.ElastixRegistrationMethod.New(*images)
    elastix.SetParameterObject(parameters)
    elastix.SetNumberOfThreads(request["threads"])
    elastix.SetLogToConsole(False)
    elastix.Update()
    field = itk.transformix_deformation_field(images[1], elastix.GetTransformParameterObject())
    costs = watch.read()
    return itk.array_from_image(field).transpose(3, 2, 1, 0), costs


def affine_medwave(request: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The affine start of ``medwave register`` with default options."""
    import medwave

    fixed, moving = request["fixed"], request["moving"]
    return medwave.register(fixed, moving, deformable=False, threads=request["threads"]).matrix


def affine_ants(request: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The affine of antspyx with default options."""
    import ants

    from medwave.volumes import read_affine

    fixed, moving = (ants.image_read(request[role]) for role in ("fixed", "moving"))
    prefix = str(Path(request["folder"]) / "ants_")
    result = ants.registration(fixed, moving, "Affine", outprefix=prefix, random_seed=ANTS["random_seed"])
    return read_affine(result["fwdtransforms"][0])


AFFINES = {"affine-medwave": affine_medwave, "affine-ants": affine_ants}
METHODS: dict[str, Callable[[dict[str, Any]], tuple[Field, dict[str, Any]]]] = {
    "medwave": run_medwave,
    "greedy": run_greedy,
    "ants": run_ants,
    "demons": run_demons,
    "elastix": run_elastix,
}


def _read_itk(request: dict[str, Any]) -> list[Any]:
    import SimpleITK as sitk

    return [sitk.ReadImage(request[role], sitk.sitkFloat32) for role in ("fixed", "moving")]


def _itk_affine(request: dict[str, Any]) -> Any:
    import SimpleITK as sitk

    lps = _LPS @ np.asarray(request["affine"]) @ _LPS
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel().tolist())
    affine.SetTranslation(lps[:3, 3].tolist())
    return affine


def _shrink(image: Any, factor: int) -> Any:
    """Every ``factor``-th voxel after smoothing by half of that."""
    import SimpleITK as sitk

    if factor == 1:
        return image
    smooth = sitk.SmoothingRecursiveGaussian(image, [0.5 * factor * s for s in image.GetSpacing()])
    return sitk.Resample(
        smooth, [-(-n // factor) for n in image.GetSize()], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(),
        [factor * s for s in image.GetSpacing()], image.GetDirection(), 0.0,
    )  # fmt: skip


def _to_itk(image: Any) -> Any:
    import itk
    import SimpleITK as sitk

    copy = itk.image_from_array(sitk.GetArrayFromImage(image))
    copy.SetOrigin(image.GetOrigin())
    copy.SetSpacing(image.GetSpacing())
    copy.SetDirection(itk.matrix_from_array(np.reshape(image.GetDirection(), (3, 3))))
    return copy


def _field_of(image: Any) -> Field:
    """Vectors of a SimpleITK image, whose arrays have the last file axis first and the component last."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0)  # a copy: the image may go with its owner


def _lps(vectors_ras: Field) -> Field:
    return vectors_ras * np.array([-1.0, -1.0, 1.0], dtype=np.float32)[:, None, None, None]


def main(method: str, request_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    folder = Path(request["folder"])
    os.chdir(folder)  # what a method leaves beside its results goes with the folder
    if method in AFFINES:
        matrix = np.asarray(AFFINES[method](request)).tolist()
        (folder / "affine.json").write_text(json.dumps(matrix), encoding="utf-8")
        return
    field, costs = METHODS[method](request)
    np.save(folder / "field.npy", np.ascontiguousarray(field, dtype=np.float32))
    (folder / "method.json").write_text(json.dumps(costs), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
