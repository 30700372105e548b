"""Registering end to end: the truth is found, whatever the grids, and the files say the same as the arrays."""

import json

import numpy as np
import phantom
import pytest
import SimpleITK as sitk
from scipy import ndimage

import medwave
from medwave.core.errors import DeviceError, GeometryError, InputError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.core.orientation import reorient, reorient_grid
from medwave.core.provenance import fingerprint
from medwave.metrics import dice, folding
from medwave.volumes import PointTable, read_volume, write_volume
from medwave.workflows.presets import LEVELS, levels_for
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import FILES

GRIDS = {
    "shuffled and flipped": (
        phantom.turned(order=(2, 0, 1), signs=(1, -1, -1)),
        phantom.turned(order=(1, 2, 0), signs=(-1, -1, 1), reach_mm=75.0),
    ),
    "anisotropic": (
        phantom.turned(spacing_mm=(2.5, 3.0, 4.0)),
        phantom.turned(spacing_mm=(3.5, 2.5, 3.0), signs=(-1, -1, 1)),
    ),
    "oblique": (
        phantom.turned(angle=0.35, order=(0, 2, 1)),
        phantom.turned(angle=-0.5, signs=(-1, 1, -1), reach_mm=80.0),
    ),
}


def register(pair, **options):
    return medwave.register(
        pair.fixed,
        pair.moving,
        fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels,
        **{"threads": 1, **options},
    )


@pytest.fixture(scope="module")
def pair():
    return phantom.make_pair()


@pytest.fixture(scope="module")
def result(pair):
    return register(pair)


@pytest.fixture(scope="module")
def saved(pair, result, tmp_path_factory):
    """The pair and the run as files: paths of the inputs, folder of the run."""
    folder = tmp_path_factory.mktemp("saved")
    inputs = pair.write(folder)
    report = result.save(folder / "new" / "run", inputs={k: str(v) for k, v in inputs.items()}, command_line="again")
    return inputs, report.parent


def lps(points):
    return np.asarray(points) * (-1.0, -1.0, 1.0)


def through(transform, points):
    """Points (RAS) through an ITK transform."""
    return lps([transform.TransformPoint(tuple(point)) for point in lps(points)])


def worst_difference(image, expected, region):
    """Mean absolute difference in a region, as a share of the intensity range."""
    return float(np.abs(image - expected)[region].mean() / np.ptp(expected))


def test_the_true_transform_is_found(result):
    def affine_only(points):
        return points @ result.matrix[:3, :3].T + result.matrix[:3, 3]

    before, affine = phantom.true_error_mm(lambda points: points), phantom.true_error_mm(affine_only)
    after = phantom.true_error_mm(result.transform.apply_points_mm)
    assert before > 8 > affine
    assert after < 1.2, "a third of a voxel"
    assert phantom.anatomy_dice(result.transform.apply_points_mm) > 0.95 > 0.7 > phantom.anatomy_dice(lambda p: p)
    assert folding(result.displacement_voxels).count == 0
    assert result.jacobian.min() > 0
    assert not result.warnings


def test_the_inverse_leads_back(result):
    points = phantom.inside_points()
    there = result.transform.apply_points_mm(points)
    assert np.linalg.norm(result.inverse_transform.apply_points_mm(there) - points, axis=1).mean() < 0.5


@pytest.mark.parametrize("name", GRIDS)
def test_any_grid_gives_the_same_anatomy(result, name):
    other = register(phantom.make_pair(*GRIDS[name]))
    expected = phantom.anatomy_dice(result.transform.apply_points_mm)
    assert phantom.anatomy_dice(other.transform.apply_points_mm) == pytest.approx(expected, abs=0.01)
    points = phantom.inside_points()
    apart = other.transform.apply_points_mm(points) - result.transform.apply_points_mm(points)
    assert np.linalg.norm(apart, axis=1).mean() < 1.0


def test_the_same_run_gives_the_same_numbers(pair, result):
    again = register(pair)
    np.testing.assert_array_equal(again.displacement_voxels, result.displacement_voxels)
    np.testing.assert_array_equal(again.matrix, result.matrix)


def test_every_file_of_the_run_is_there_and_nothing_else(saved):
    _, run = saved
    written = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert written == {name for name, _ in FILES.values()} | {"run.json", "report.html"}


def test_the_composite_alone_warps_in_simpleitk(saved):
    inputs, run = saved
    fixed, moving = (sitk.ReadImage(str(inputs[role]), sitk.sitkFloat32) for role in ("fixed", "moving"))
    composite = sitk.ReadTransform(str(run / "transform/composite.h5"))
    image = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, composite)).T
    warped = read_volume(run / "warped.nii.gz")
    assert worst_difference(image, warped.data, read_volume(inputs["fixed_labels"]).data > 0) < 1e-3
    assert worst_difference(image, warped.data, np.ones(image.shape, bool)) < 1e-3


def test_affine_and_field_alone_warp_in_simpleitk(saved):
    inputs, run = saved
    fixed, moving = (sitk.ReadImage(str(inputs[role]), sitk.sitkFloat32) for role in ("fixed", "moving"))
    field = sitk.ReadImage(str(run / "transform/field.nii.gz"), sitk.sitkVectorFloat64)
    whole = sitk.CompositeTransform(sitk.ReadTransform(str(run / "transform/affine.tfm")))
    whole.AddTransform(sitk.DisplacementFieldTransform(field))
    image = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, whole)).T
    warped = read_volume(run / "warped.nii.gz")
    assert worst_difference(image, warped.data, np.ones(image.shape, bool)) < 1e-3


def test_the_inverse_composite_brings_points_back_in_simpleitk(saved):
    _, run = saved
    points = phantom.inside_points()[::97]
    forward, backward = (
        sitk.ReadTransform(str(run / "transform" / name)) for name in ("composite.h5", "inverse_composite.h5")
    )
    apart = through(backward, through(forward, points)) - points
    assert np.linalg.norm(apart, axis=1).mean() < 0.5
    assert np.linalg.norm(through(forward, points) - points, axis=1).mean() > 5


def test_labels_and_points_agree_with_the_image(saved, pair, result):
    """Each fixed voxel, sent as a point through the file, finds in the moving files what the warped files hold."""
    _, run = saved
    voxels = np.argwhere(pair.fixed_labels.data > 0)[::53]
    there = through(sitk.ReadTransform(str(run / "transform/composite.h5")), pair.fixed.grid.to_mm(voxels))
    at = pair.moving.grid.to_voxels(there).T
    values = ndimage.map_coordinates(pair.moving.data, at, order=1)
    np.testing.assert_allclose(values, read_volume(run / "warped.nii.gz").data[tuple(voxels.T)], atol=3.0)
    clear = (np.abs(at - np.floor(at) - 0.5) > 0.01).all(axis=0)  # not half way between two voxels
    nearest = pair.moving_labels.data[tuple(np.rint(at[:, clear]).astype(int))]
    stored = read_volume(run / "warped_labels.nii.gz", dtype=None).data[tuple(voxels[clear].T)]
    np.testing.assert_array_equal(nearest, stored)
    np.testing.assert_allclose(result.transform.apply_points_mm(pair.fixed.grid.to_mm(voxels)), there, atol=0.01)


def test_the_record_tells_inputs_grids_measures_and_cost(saved, pair, result):
    inputs, run = saved
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "ok"
    assert record["command"] == "again"
    assert {role: entry["path"] for role, entry in record["inputs"].items()} == {k: str(v) for k, v in inputs.items()}
    grid = record["grids"]["moving"]
    assert Grid(tuple(grid["shape"]), np.array(grid["affine"])) == pair.moving.grid
    stages = [stage["name"] for stage in record["stages"]]
    assert stages == ["read", "affine", "prepare", "refine", "invert", "warp", "write", "measure", "report"]
    assert record["total"]["cpu_s"] == pytest.approx(sum(stage["cpu_s"] for stage in record["stages"]))
    assert all(stage["peak_rss_mb"] > 50 for stage in record["stages"])
    assert record["figures"]["Folded voxels"]["after"] == 0
    scores = dice(pair.fixed_labels.data, result.warped_labels.data)
    assert {int(k): v["after"] for k, v in record["dice"].items()} == pytest.approx(scores)


def test_images_of_opposite_contrast_are_told_to_agree(pair, tmp_path):
    """Their own correlation falls towards -1 as they come to agree."""
    data = np.asarray(pair.moving.data)
    opposite = Volume(np.where(data > 0, 1.1 * data.max() - data, 0).astype(np.float32), pair.moving.grid, "opposite")
    result = medwave.register(pair.fixed, opposite, preset="fast", threads=1)
    assert result.options.metric == "curve"
    result.save(tmp_path)
    told = json.loads((tmp_path / "run.json").read_text())["figures"]["Correlation in the subject"]
    assert 0 <= told["before"] < told["after_affine"] < told["after"]
    assert told["after"] > 0.7


@pytest.mark.parametrize("exponent", [-40, 80])
def test_the_unit_of_intensities_does_not_matter(pair, exponent, tmp_path):
    quick = {"preset": "fast", "init": phantom.MATRIX, "affine": "none", "threads": 1}
    scaled = Volume(np.ldexp(pair.moving.data, exponent), pair.moving.grid, "scaled")  # exact: nothing is rounded
    plain, result = (medwave.register(pair.fixed, moving, **quick) for moving in (pair.moving, scaled))
    np.testing.assert_array_equal(result.displacement_voxels, plain.displacement_voxels)
    told = []
    for name, each in (("plain", plain), ("scaled", result)):
        each.save(tmp_path / name)
        told.append(json.loads((tmp_path / name / "run.json").read_text())["figures"]["Correlation in the subject"])
    assert told[0] == told[1]


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1000), (-1, 1500)])
def test_a_background_that_is_not_black_does_not_pull(slope, intercept):
    """As of CT, or of histology on white: where the moving image ends, 0 would be as bright, or as dark, as tissue."""
    quick = {"preset": "fast", "init": phantom.MATRIX, "affine": "none", "threads": 1}
    pair = phantom.make_pair(moving_grid=phantom.turned(reach_mm=66.0))
    other = [Volume(slope * v.data + np.float32(intercept), v.grid, v.name) for v in (pair.fixed, pair.moving)]
    plain, result = medwave.register(pair.fixed, pair.moving, **quick), medwave.register(*other, **quick)
    errors = [phantom.true_error_mm(each.transform.apply_points_mm) for each in (plain, result)]
    assert errors[1] < 1.1 * errors[0]


def test_a_slab_of_thick_slices_is_not_pulled_at_its_ends():
    """The head goes on in the moving image where the fixed one ends."""
    whole = phantom.make_pair(fixed_grid=phantom.turned(spacing_mm=(3.0, 3.0, 4.5)))
    depth = whole.fixed.grid.shape[2]
    first, last = int(0.4 * depth), int(0.8 * depth)
    grid = whole.fixed.grid.crop((0, 0, first), (*whole.fixed.grid.shape[:2], last - first))
    slab = Volume(np.ascontiguousarray(whole.fixed.data[:, :, first:last]), grid, "slab")
    points = phantom.inside_points()
    points = points[grid.holds(points)]
    errors = []
    for fixed in (whole.fixed, slab):
        found = medwave.register(
            fixed, whole.moving, preset="fast", init=phantom.MATRIX, affine="none", threads=1
        ).transform.apply_points_mm(points)
        errors.append(np.linalg.norm(found - phantom.to_moving(points), axis=1).mean())
    assert errors[1] < 1.3 * errors[0]


def test_voxel_sizes_in_another_unit_are_refused_without_a_start(pair):
    larger = pair.moving.grid.affine.copy()
    larger[:3] *= 1000
    metres = Volume(pair.moving.data, Grid(pair.moving.grid.shape, larger), "metres")
    with pytest.raises(GeometryError, match=r"fixed is 144 mm wide, metres 150000 mm: .* another unit.*--init"):
        medwave.register(pair.fixed, metres, threads=1)
    start = np.diag([1000, 1000, 1000, 1]) @ phantom.MATRIX
    found = medwave.register(pair.fixed, metres, init=start, deformable=False, threads=1)
    points = phantom.inside_points()
    assert np.linalg.norm(found.transform.apply_points_mm(points) / 1000 - phantom.to_moving(points), axis=1).mean() < 6


def test_a_second_run_into_the_folder_leaves_nothing_of_the_first(result, tmp_path):
    result.save(tmp_path)
    assert (tmp_path / "warped_labels.nii.gz").exists()
    bare = medwave.register(result.fixed, result.moving, affine="none", deformable=False, threads=1)
    bare.save(tmp_path)
    assert not (tmp_path / "warped_labels.nii.gz").exists()
    assert json.loads((tmp_path / "run.json").read_text())["options"]["deformable"] is False


def test_an_interrupted_save_leaves_no_mark_of_a_complete_run(result, tmp_path, monkeypatch):
    result.save(tmp_path)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("medwave.workflows.save.write_composite", stop)
    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path)
    assert not (tmp_path / "run.json").exists()
    with pytest.raises(InputError, match=r"complete run"):
        medwave.apply_transform(tmp_path, result.moving)


def test_steps_can_be_left_out(pair):
    nothing = register(pair, affine="none", deformable=False)
    np.testing.assert_array_equal(nothing.matrix, np.eye(4))
    assert not nothing.displacement_voxels.any()
    assert nothing.affine is None
    rigid = register(pair, affine="rigid", deformable=False)
    np.testing.assert_allclose(rigid.matrix[:3, :3] @ rigid.matrix[:3, :3].T, np.eye(3), atol=1e-6)


def test_a_given_start_is_taken(pair):
    started = register(pair, init=phantom.MATRIX, affine="none", deformable=False)
    np.testing.assert_array_equal(started.matrix, phantom.MATRIX)


def test_the_stages_and_iterations_are_told(pair):
    stages, steps = [], []
    register(pair, preset="fast", affine="none", init=phantom.MATRIX, on_stage=stages.append, on_progress=steps.append)
    assert stages == ["read", "affine", "prepare", "refine", "invert", "warp"]
    assert steps
    assert steps[-1].level == steps[-1].levels - 1


def test_a_masked_lesion_does_not_pull(pair):
    """A bright ball that only the fixed image has bends the map around it, unless it is excluded."""
    centre = np.array([18.0, 10.0, 5.0])
    ball = np.linalg.norm(phantom.world(pair.fixed.grid) - centre, axis=-1) < 7
    hurt = Volume(np.where(ball, np.float32(2500), pair.fixed.data), pair.fixed.grid, "hurt")
    lesion = Volume(ball.astype(np.uint8), pair.fixed.grid, "lesion")
    points = phantom.inside_points()
    near = points[np.linalg.norm(points - centre, axis=1) < 20]

    def error(**given):
        found = medwave.register(hurt, pair.moving, init=phantom.MATRIX, affine="none", threads=1, **given)
        return np.linalg.norm(found.transform.apply_points_mm(near) - phantom.to_moving(near), axis=1).mean()

    assert error(lesion_fixed=lesion) < 0.4 * error()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"metric": "nothing"}, InputError, "metric: one of"),
        ({"radius": 9}, InputError, "radius"),
        ({"threads": -1}, InputError, "threads"),
        ({"device": "nowhere"}, DeviceError, "use --device cpu"),
    ],
)
def test_unusable_options_are_refused(pair, change, error, match):
    with pytest.raises(error, match=match):
        register(pair, **change)


def test_labels_on_another_grid_are_refused(pair):
    with pytest.raises(GeometryError, match="must lie on its grid"):
        medwave.register(pair.fixed, pair.moving, fixed_labels=pair.moving_labels)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_written(result, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    for folder in (file, file / "below"):
        with pytest.raises(OutputError, match="output folder"):
            result.save(folder)
    assert file.read_text() == "kept"


@pytest.fixture(scope="module")
def brains(data_folder):
    """Benchmark pair 1003 (moving) -> 1009 (fixed) with its labels."""
    folder = data_folder / "brains" / "benchmark"
    roles = {"fixed": "1009_T1_brain", "moving": "1003_T1_brain", "fixed_labels": "1009_labels"}
    return {k: folder / f"{v}.nii.gz" for k, v in {**roles, "moving_labels": "1003_labels"}.items()}


def brain_dice(brains, transform):
    """Mean Dice over the structures, looked up in the original maps: independent of the grids of the run."""
    fixed, moving = (read_volume(brains[f"{name}_labels"], dtype=None) for name in ("fixed", "moving"))
    return float(np.mean(list(dice(fixed.data, Pullback.through(transform, fixed.grid).labels(moving).data).values())))


@pytest.fixture(scope="module")
def brain_run(brains, tmp_path_factory):
    result = medwave.register(*(brains[k] for k in ("fixed", "moving")), threads=1)
    folder = tmp_path_factory.mktemp("brains")
    result.save(folder)
    return result, folder


@pytest.mark.slow
@pytest.mark.data
def test_real_brains_overlap_without_folds(brains, brain_run):
    result, _ = brain_run
    assert brain_dice(brains, result.transform) >= 0.62
    assert folding(result.displacement_voxels).count == 0
    assert not result.warnings


@pytest.mark.slow
@pytest.mark.data
def test_real_brains_warp_alike_in_simpleitk(brains, brain_run):
    result, folder = brain_run
    fixed, moving = (sitk.ReadImage(str(brains[role]), sitk.sitkFloat32) for role in ("fixed", "moving"))
    composite = sitk.ReadTransform(str(folder / "transform/composite.h5"))
    image = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, composite)).T
    assert worst_difference(image, read_volume(folder / "warped.nii.gz").data, result.subject) < 1e-3


@pytest.mark.slow
@pytest.mark.data
def test_real_brains_on_other_grids_give_the_same_anatomy(brains, brain_run, tmp_path):
    """Fixed axes shuffled and flipped; moving resampled to a tilted grid of anisotropic voxels."""
    fixed, moving = read_volume(brains["fixed"]), read_volume(brains["moving"])
    shuffle = (2, 0, 1), (True, False, True)
    write_volume(tmp_path / "fixed.nii.gz", Volume(reorient(fixed.data, *shuffle), reorient_grid(fixed.grid, *shuffle)))
    tilted = phantom.turned(order=(1, 0, 2), signs=(1, -1, -1), spacing_mm=(0.9, 1.3, 1.0), angle=0.3, reach_mm=110.0)
    affine = tilted.affine.copy()
    affine[:3, 3] += moving.grid.center_mm
    still = Pullback(Grid(tilted.shape, affine), np.eye(4), None)
    write_volume(tmp_path / "moving.nii.gz", still.image(moving, "cubic"))
    other = medwave.register(tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", threads=1)
    expected = brain_dice(brains, brain_run[0].transform)
    assert brain_dice(brains, other.transform) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("preset", LEVELS)
def test_the_force_is_limited_where_that_was_measured_to_help(preset):
    def taken(*case, **more):
        levels = levels_for(preset, *case, **more)
        return (
            [level.factor for level in levels],
            [level.iterations for level in levels],
            {x.force_limit for x in levels},
        )

    factors, iterations = ([getattr(level, name) for level in LEVELS[preset]] for name in ("factor", "iterations"))
    twice = [2 * n for n in iterations]
    assert taken("lncc", (64, 90, 70)) == (factors, iterations, {3.0})
    assert taken("lncc", (64, 90, 70), masked=True) == (factors, twice, {3.0})
    assert taken("mi", (64, 90, 70)) == (factors, twice, {np.inf})
    assert taken("mi", (64, 90, 70), masked=True) == (factors, twice, {np.inf})
    mixed = [n if factor >= 4 else 2 * n for factor, n in zip(factors, iterations, strict=True)]
    assert taken("curve", (64, 90, 70)) == (factors, mixed, {3.0, np.inf})  # coarse scales are those of lncc
    assert taken("curve", (64, 90, 70), masked=True) == (factors, twice, {3.0, np.inf})
    assert taken("curve", (63, 90, 70)) == (factors[1:], twice[1:], {np.inf})
    assert taken("lncc", (63, 90, 70)) == (factors[1:], twice[1:], {np.inf})
    assert taken("lncc", (5, 90, 70)) == (factors[-1:], twice[-1:], {np.inf})


@pytest.mark.parametrize(
    "init",
    [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 1, 2]), [[1, 0], [0, 1]], [["a"]]],
    ids=["3x3", "zeros", "nan", "last row", "2x2 list", "words"],
)
def test_an_initial_matrix_that_is_none_is_refused(pair, init):
    with pytest.raises(InputError, match="an initial matrix is 4x4, finite and invertible"):
        medwave.register(pair.fixed, pair.moving, init=init)


def test_a_matrix_as_a_list_is_one(pair):
    lists = np.eye(4).tolist()
    results = [register(pair, init=init, affine="none", deformable=False) for init in (lists, np.eye(4))]
    np.testing.assert_array_equal(results[0].warped.data, results[1].warped.data)


def test_arrays_without_a_grid_and_values_that_are_none_are_refused(pair):
    with pytest.raises(InputError, match=r"got ndarray; Volume\(array"):
        medwave.register(pair.fixed.data, pair.moving)
    holed = np.array(pair.moving.data)
    holed[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="image values are finite"):
        medwave.register(pair.fixed, Volume(holed, pair.moving.grid, "holed"))
    thin = Volume(pair.fixed.data[:, :, :2], Grid((*pair.fixed.grid.shape[:2], 2), pair.fixed.grid.affine), "thin")
    with pytest.raises(GeometryError, match=r"two slices.*at least three"):
        medwave.register(thin, pair.moving)


def test_further_channels_in_wavelets_are_refused_before_the_work(pair):
    def stop(stage):
        assert stage == "read", "the work has begun"

    further = {"fixed_channels": [pair.fixed], "moving_channels": [pair.moving]}
    with pytest.raises(InputError, match="the compositive formulation"):
        medwave.register(pair.fixed, pair.moving, on_stage=stop, formulation="wavelet", **further)


def test_a_file_that_itk_sees_elsewhere_is_warned_of(pair, tmp_path):
    import nibabel as nib

    write_volume(tmp_path / "a.nii", pair.fixed)
    image = nib.load(tmp_path / "a.nii")
    turned = image.affine.copy()
    turned[:3, 3] += 20
    image.set_sform(turned, 2)
    nib.save(image, tmp_path / "b.nii")
    said = [
        medwave.register(tmp_path / name, pair.moving, affine="none", deformable=False).warnings
        for name in ("a.nii", "b.nii")
    ]
    assert said[0] == ()
    assert len(said[1]) == 1
    assert "b.nii: its sform and qform lie up to 34.6 mm apart" in said[1][0]


def test_landmarks_that_only_measure_go_with_wavelets(pair):
    places = pair.fixed.grid.to_mm(np.array([[20, 20, 20], [25, 22, 24]]))
    points = PointTable(places, rows=tuple(tuple(map(str, place)) for place in places))
    shared = {"landmarks_fixed": points, "landmarks_moving": points, "formulation": "wavelet", "affine": "none"}
    for options in ({"landmark_weight": 0, "preset": "fast"}, {"deformable": False}):
        result = medwave.register(pair.fixed, pair.moving, threads=1, **shared, **options)
        assert len(result.landmarks.after_mm) == 2


def test_a_run_notes_files_as_they_were_when_they_were_read(pair, tmp_path):
    write_volume(tmp_path / "moving.nii", pair.moving)
    digest = fingerprint(tmp_path / "moving.nii")["sha256"]
    result = medwave.register(pair.fixed, tmp_path / "moving.nii", affine="none", deformable=False)
    write_volume(tmp_path / "moving.nii", pair.fixed)
    result.save(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {role: entry["sha256"] for role, entry in record["inputs"].items()} == {"moving": digest}
