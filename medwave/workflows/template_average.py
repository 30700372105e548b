"""A new template from images that were registered to the last one: its shape and its grey levels are their average.

Each image came with ``T_i(x) = A_i(x + u_i(x))``, points of the last template -> points of image i. The mean
displacement ``m = mean u_i`` and the middle of the ``A_i`` (:mod:`medwave.fields.middle`) lead from the last template
to the shape that lies in the middle of the images. The new template is in that shape: with ``H`` from the middle to
the last template's world and v the inverse of m, each image is read once, at ``T_i(x + v(x))`` for ``x = H(y)``, and
the values are averaged (Guimond et al., Comput Vis Image Underst 77:192-210, 2000, doi 10.1006/cviu.1999.0815; Avants
et al., NeuroImage 49:2457-2466, 2010, doi 10.1016/j.neuroimage.2009.09.062).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.engine.pyramid import foreground
from medwave.fields.inversion_kernel import invert_array
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_volume
from medwave.workflows.chains import whole_displacement
from medwave.workflows.pullback import Pullback
from medwave.workflows.template_images import TemplateImage

FloatVolume = npt.NDArray[np.float32]
_LEAST_COVER = 0.5
_SHARPEN_SIGMA_VOXELS = 1.0
_INVERSE_TOLERANCE_VOXELS = 1e-3


@dataclass(frozen=True)
class Moved:
    """How one image is reached from the last template: ``A(x + u(x))``; u is read when it is needed, None is zero."""

    image: TemplateImage
    matrix: Float64Array
    field: Callable[[], FieldStep] | None = None

    @property
    def transform(self) -> SpatialTransform:
        """From points of the last template to points of the image."""
        steps = () if self.field is None else (self.field(),)
        return SpatialTransform((*steps, LinearStep(self.matrix)))


@dataclass(frozen=True)
class Average:
    """A template and what is known of it.

    Attributes:
        template: the mean image.
        shift_mm: mean length, in the subject, of the step from the last template's shape to this one.
        change: root mean square of the new less the last template in the subject, as a share of the images' level.
        spread: mean standard deviation over the images in the subject, as a share of their level.
    """

    template: Volume
    shift_mm: float
    change: float | None
    spread: float


def shape_update(moved: Sequence[Moved], home: Float64Array, last: Grid | None, grid: Grid) -> FieldStep:
    """The step back from the new template to the last: ``y -> H(y)``, then ``x -> x + v(x)``, as one field.

    Args:
        moved: the images.
        home: H.
        last: grid of the last template, on which the fields lie; None when there are none.
        grid: of the new template.
    """
    steps: list[LinearStep | FieldStep] = [LinearStep(home)]
    if last is not None:
        mean = np.zeros((3, *last.shape))
        for one in moved:
            if one.field is not None:
                mean += one.field().displacement_voxels
        inverse, _ = invert_array((mean / len(moved)).astype(np.float32), tolerance_voxels=_INVERSE_TOLERANCE_VOXELS)
        steps.append(FieldStep(inverse, last))
    return whole_displacement(SpatialTransform(tuple(steps)), grid)


def average(
    moved: Sequence[Moved], step: FieldStep, *, sharpen: float = 0.0, last: Volume | None = None, name: str = "template"
) -> Average:
    """Average the images in the space of the new template.

    Where an image shows nothing it does not count; where fewer than half of them do, the template is 0.

    Args:
        moved: the images, in an order that does not depend on how they were named.
        step: what :func:`shape_update` returned; its grid is that of the template.
        sharpen: share of the difference to a smoothed copy that is added.
        last: the last template, to tell how much changed.
        name: of the template.
    """
    grid, level = step.grid, float(np.median([one.image.level for one in moved]))
    total, squares, cover = (np.zeros(grid.shape) for _ in range(3))
    for one in moved:
        places = Pullback.through(SpatialTransform((step, *one.transform.steps)), grid)
        volume = read_volume(one.image.path)
        shown = places.image(Volume(np.ones(volume.grid.shape, dtype=np.float32), volume.grid)).data > 0
        values = np.asarray(places.image(volume).data, dtype=np.float64) * (level / one.image.level)
        total += np.where(shown, values, 0)
        squares += np.where(shown, values * values, 0)
        cover += shown
    enough = cover >= _LEAST_COVER * len(moved)
    mean = np.where(enough, total / np.maximum(cover, 1), 0)
    deviation = np.sqrt(np.maximum(np.where(enough, squares / np.maximum(cover, 1), 0) - mean * mean, 0))
    subject = foreground(mean.astype(np.float32))
    if sharpen:
        smoothed = ndimage.gaussian_filter(mean, _SHARPEN_SIGMA_VOXELS, mode="nearest")
        mean = np.clip(mean + sharpen * (mean - smoothed), mean.min(), None)
    template = Volume(mean.astype(np.float32), grid, name)
    moved_mm = np.tensordot(grid.affine[:3, :3], step.displacement_voxels[:, subject], axes=1)
    change = None
    if last is not None and last.grid.matches(grid):
        change = float(np.sqrt(np.mean((mean - last.data)[subject] ** 2))) / level
    return Average(
        template, float(np.linalg.norm(moved_mm, axis=0).mean()), change, float(deviation[subject].mean()) / level
    )
