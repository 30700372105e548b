"""Whole traces of tubes whose tree is known, of bad input, and of the real neurons."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import tubes

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import SOMA, Tree
from medwave.tracing import TraceOptions, topology, trace, translate
from medwave.tracing.grey import to_grey
from medwave.transforms.neurons import Microscope, render_neuron
from medwave.transforms.rasterise import draw_tubes
from medwave.volumes.swc import read_swc, write_swc


def blurred(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """The tube image with soft edges and a noisy background."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(6, 2, image.shape)
    return np.clip(ndimage.gaussian_filter(image.astype(float), 0.7) + noise, 0, 255).astype(np.uint8)


# --- known trees -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", ["distance", "brightness"])
@pytest.mark.parametrize("radius", [1.5, 2.0, 2.5, 3.0, 4.0])
def test_a_y_has_one_root_one_fork_two_tips_and_lies_on_its_centre_line(cost: str, radius: float) -> None:
    gold = tubes.y_shape(radius)
    image = tubes.draw(gold, shape=(24, 64, 80))
    tree = trace(image if cost == "distance" else blurred(image), options=TraceOptions(cost=cost))
    shape = topology(tree)
    assert (shape.roots, shape.forks, shape.tips) == (1, 1, 2)
    assert tubes.mean_distance(tree, gold) < 1.5


@pytest.mark.parametrize("kind", ["image", "mask", "probability"])
def test_one_tube_as_image_mask_and_probability_gives_the_same_tree(kind: str) -> None:
    image = tubes.draw(tubes.y_shape(2.5), shape=(24, 64, 80))
    volume = {"image": image, "mask": image > 0, "probability": (image > 0) * np.float32(0.9)}[kind]
    tree = trace(volume, options=TraceOptions(kind=kind))
    assert topology(tree)[1:4] == (1, 1, 2)
    assert tubes.mean_distance(tree, tubes.y_shape()) < 1.0


def test_log_probability_prefers_the_sure_way() -> None:
    probability = np.zeros((9, 21, 40), np.float32)
    probability[4, 10, 2:38] = 0.55
    probability[4, 5, 2:38] = 0.99
    probability[4, 5:11, [2, 37]] = 0.99
    options = TraceOptions(
        kind="probability", cost="log_probability", shortest_segment=2, resample_step=0, roots=((4, 10, 2),)
    )
    tree = trace(probability, options=options)
    tip = int(np.argmin(np.abs(tree.positions - [37, 9, 4]).sum(axis=1)))
    ys = []
    while tip >= 0:
        ys.append(tree.positions[tip, 1])
        tip = int(tree.parent[tip])
    assert min(ys) == 5


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, ">u2"])
def test_other_types_are_scaled_and_a_hot_voxel_changes_nothing(dtype: object) -> None:
    image = tubes.draw(tubes.y_shape(2.5), shape=(24, 64, 80))
    volume = (image.astype(np.float64) * 4 + 100).astype(dtype)
    plain = trace(volume)
    volume[1, 1, 1] = 30000
    assert trace(volume) == plain
    assert topology(plain)[1:4] == (1, 1, 2)


def test_the_radius_of_a_straight_tube_is_known() -> None:
    tree = trace(tubes.draw(tubes.line((12, 18.3, 6), (12, 22.4, 90), 4.0), shape=(25, 40, 97)))
    assert topology(tree)[1:4] == (1, 0, 1)
    assert abs(np.median(tree.radius) - 4.0) < 0.6


def test_thick_slices_change_neither_shape_nor_radius() -> None:
    spacing = (3.0, 1.0, 1.0)
    gold = tubes.tree_of([(4, 8, 20), (14, 40, 20), (18, 60, 8), (18, 60, 36)], [-1, 0, 1, 1], 4.0)
    image = tubes.draw(gold, shape=(24, 68, 44), spacing=spacing)
    tree = trace(image, options=TraceOptions(spacing=(1.5, 0.5, 0.5)))
    assert topology(tree)[1:4] == (1, 1, 2)
    assert tubes.mean_distance(tree, gold, spacing=spacing) < 1.5
    assert abs(np.median(tree.radius) - 4.0) < 1.0


def test_equal_volumes_give_equal_trees_whatever_their_memory_order() -> None:
    image = blurred(tubes.draw(tubes.y_shape(2.5), shape=(24, 64, 80)))
    first = trace(image)
    assert trace(image.copy()) == first
    assert trace(np.asfortranarray(image)) == first


def test_a_shifted_volume_gives_the_shifted_tree() -> None:
    gold = tubes.y_shape(2.5)
    near, far = (
        trace(np.pad(tubes.draw(gold, shape=(24, 64, 80)), ((a, 9), (4, b), (b, 3)))) for a, b in ((2, 5), (7, 11))
    )
    np.testing.assert_allclose(translate(near, (6, 0, 5)).positions, far.positions, atol=1e-9)


def test_nodes_lie_at_most_one_step_apart_and_every_voxel_is_kept_without_resampling() -> None:
    image = tubes.draw(tubes.y_shape(2.5), shape=(24, 64, 80))
    assert trace(image, options=TraceOptions(resample_step=4)).edge_lengths.max() <= 4
    assert trace(image, options=TraceOptions(resample_step=0)).edge_lengths.max() <= np.sqrt(3)


# --- somata, several trees -------------------------------------------------------------------------------------------


def two_cells() -> np.ndarray:
    """Two balls of radius 7, 60 apart, joined by a thin fibre, each with another fibre."""
    thin = tubes.tree_of([(16, 4, 20), (16, 20, 20), (16, 20, 80), (16, 36, 80)], [-1, 0, 1, 2], 1.5)
    somata = [tubes.tree_of([(16, 20, x)], [-1], 7.0) for x in (20, 80)]
    return tubes.draw(thin, *somata, shape=(33, 41, 101))


def test_two_somata_give_two_trees_even_where_fibres_touch() -> None:
    tree = trace(two_cells(), options=TraceOptions(soma_radius=5))
    assert sorted(tree.positions[tree.roots][:, 0].round().tolist()) == [20, 80]
    assert (tree.kind[tree.roots] == SOMA).all()
    shape = topology(tree)
    assert (shape.roots, shape.forks, shape.tips) == (2, 2, 4)
    assert shape.length == pytest.approx(60 + 2 * 16, abs=6)


def test_given_roots_are_where_trees_start() -> None:
    tree = trace(two_cells(), options=TraceOptions(roots=((16, 20, 80), (15, 19, 20))))
    np.testing.assert_array_equal(tree.positions[tree.roots], [[80, 20, 16], [20, 19, 15]])
    one = trace(two_cells(), options=TraceOptions(roots=((16, 20, 80),)))
    assert len(one.roots) == 1
    assert one.length == pytest.approx(tree.length, rel=0.2)


def test_the_thickest_place_becomes_root_and_soma_by_itself() -> None:
    soma = tubes.tree_of([(16, 20, 50)], [-1], 7.0)
    image = tubes.draw(tubes.line((16, 20, 5), (16, 20, 95), 1.5), soma, shape=(33, 41, 101))
    tree = trace(image)
    assert len(tree.roots) == 1
    assert np.linalg.norm(tree.positions[tree.roots[0]] - [50, 20, 16]) < 3
    assert tree.kind[tree.roots[0]] == SOMA
    assert (np.delete(tree.kind, tree.roots) != SOMA).all()


@pytest.mark.parametrize(("radius", "somata"), [(6.5, 1), (10.0, 2)])
def test_beside_a_cell_only_what_is_half_as_thick_is_a_cell_too(radius: float, somata: int) -> None:
    fibres = tubes.line((16, 20, 5), (16, 20, 95), 1.0), tubes.line((16, 70, 5), (16, 70, 95), 1.0)
    blobs = tubes.tree_of([(16, 20, 50)], [-1], 15.0), tubes.tree_of([(16, 70, 50)], [-1], radius)
    tree = trace(tubes.draw(*fibres, *blobs, shape=(33, 90, 101)), options=TraceOptions(largest_foreground_share=0.2))
    assert len(tree.roots) == 2
    assert (tree.kind == SOMA).sum() == somata  # MorphIO and others open files with one soma only


def far_pieces() -> np.ndarray:
    return tubes.draw(
        tubes.line((10, 10, 5), (10, 10, 75), 2.0), tubes.line((10, 60, 5), (10, 60, 45), 2.0), shape=(21, 71, 81)
    )


def test_all_components_are_traced_or_only_the_first() -> None:
    assert len(trace(far_pieces()).roots) == 2
    for distance in (0.0, 15.0):
        one = trace(far_pieces(), options=TraceOptions(trees="one", bridge_distance=distance))
        assert len(one.roots) == 1
        assert abs(one.length - 70) < 8


def test_components_below_a_size_are_left_out() -> None:
    image = far_pieces()
    tree = trace(image, options=TraceOptions(smallest_component_voxels=int((image[:, 50:] > 0).sum()) + 1))
    assert len(tree.roots) == 1
    with pytest.raises(InputError, match="smallest component"):
        trace(image, options=TraceOptions(smallest_component_voxels=100_000))


def test_the_march_crosses_single_dark_planes_when_told() -> None:
    image = tubes.draw(tubes.line((8, 10, 5), (8, 10, 75), 2.0), shape=(17, 31, 80))
    image[:, :, [30, 50]] = 0
    assert len(trace(image, options=TraceOptions(bridge_distance=0)).roots) == 3
    whole = trace(image, options=TraceOptions(bridge_distance=0, cross_gaps=True))
    assert topology(whole)[1:4] == (1, 0, 1)
    assert tubes.mean_distance(whole, tubes.line((8, 10, 5), (8, 10, 75))) < 1.0


# --- guard and bad input ---------------------------------------------------------------------------------------------


def test_too_much_foreground_is_refused_with_share_threshold_and_a_better_one() -> None:
    noise = np.random.default_rng(0).integers(0, 200, (32, 64, 64)).astype(np.uint8)
    noise[16, 32, 5:60] = 255
    with pytest.raises(
        InputError, match=r"49\.\d% of the volume .* threshold 100.*Raise the threshold \((\d+)"
    ) as found:
        trace(noise, options=TraceOptions(threshold=100))
    better = float(str(found.value).split("Raise the threshold (")[1].split()[0])
    assert 0 < (noise > better).mean() <= 0.01
    assert len(trace(noise, options=TraceOptions(threshold=better)).roots) == 1
    with pytest.raises(InputError, match="of the mask"):
        trace(noise > 100)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("threshold", [250, 299.5, 300, 5000, 39_999, 40_000, 60_000])
def test_a_threshold_divides_the_values_themselves(dtype: type, threshold: float) -> None:
    """A soma of 40 000 beside fibres of a few hundred: a grey level is 157 wide."""
    volume = np.random.default_rng(0).integers(60, 600, (9, 20, 30)).astype(dtype)
    volume[2:6, 3:9, 3:9] = 40_000
    volume[0, 0, 0] = 65_000
    plain, grey = to_grey(volume, "image"), to_grey(volume, "image", threshold)
    level = grey.scale.threshold_level(threshold)
    np.testing.assert_array_equal(grey.grey > level, volume > threshold)
    assert np.abs(plain.grey.astype(int) - grey.grey).max() <= 1
    assert plain.scale.cut is None


def test_a_fibre_much_darker_than_a_soma_is_traced_above_its_threshold() -> None:
    volume = np.full((16, 40, 90), 100, np.uint16)
    volume[6:11, 18:23, 30:85] = 300
    volume[3:14, 14:27, 4:16] = 40_000
    for threshold, trees in ((295, 2), (305, 1)):
        assert len(trace(volume, options=TraceOptions(threshold=threshold, shortest_segment=0.1)).roots) == trees
    with pytest.raises(InputError, match="above the threshold 7e"):
        trace(volume, options=TraceOptions(threshold=70_000))
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(InputError, match="below all values"):
            trace(volume, options=TraceOptions(threshold=wrong))


def test_the_better_threshold_of_16_bits_leaves_one_percent() -> None:
    """A grey level is 100 wide: 19 940 and 20 000 are two."""
    values, counts = [0, 15_000, 19_940, 20_000, 25_500], [500, 400, 50, 4, 1]
    volume = np.resize(np.repeat(values, counts), (30, 40, 50)).astype(np.uint16)
    with pytest.raises(InputError, match="Raise the threshold") as found:
        trace(volume, options=TraceOptions(threshold=10_000))
    better = float(str(found.value).split("Raise the threshold (")[1].split()[0])
    assert 0 < (volume > better).mean() <= 0.01


def test_a_share_that_is_allowed_is_traced() -> None:
    image = tubes.draw(tubes.line((8, 8, 4), (8, 8, 36), 4.0), shape=(17, 17, 41))
    with pytest.raises(InputError, match="largest foreground share"):
        trace(image)
    assert len(trace(image, options=TraceOptions(largest_foreground_share=0.3)).roots) == 1


def with_value(value: float) -> np.ndarray:
    volume = np.zeros((4, 5, 6), np.float32)
    volume[2, 2, 2] = value
    return volume


@pytest.mark.parametrize(
    ("volume", "options", "words"),
    [
        (np.zeros((4, 5, 6), np.uint8), {}, "no voxel is above the threshold"),
        (np.zeros((4, 5, 6), bool), {}, "mask is empty"),
        (np.full((4, 5, 6), 3, np.uint16), {}, "3 everywhere"),
        (np.full((4, 5, 6), 77, np.uint8), {}, "no voxel is above the threshold"),
        (with_value(np.nan), {}, "NaN"),
        (with_value(np.inf), {"kind": "mask"}, "NaN or infinite"),
        (with_value(1.5), {"kind": "probability"}, "from 0 to 1"),
        (np.ones((4, 5, 6), np.int32), {"kind": "probability"}, "from 0 to 1"),
        (np.zeros((4, 5, 6), complex), {}, "numbers"),
        (np.full((1, 1, 1), 200, np.uint8), {"threshold": 10, "largest_foreground_share": 1}, "smallest component"),
        (far_pieces(), {"threshold": 250}, "brightest is 200"),
        (far_pieces(), {"threshold": -1}, "below all values"),
        (far_pieces(), {"shortest_segment": 1000}, "shortest segment"),
        (far_pieces(), {"roots": ((10, 30, 30),)}, "not within 10 voxels"),
        (far_pieces(), {"roots": ((np.nan, 10, 30),)}, "not within 10 voxels"),
    ],
)
def test_bad_input_is_named(volume: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        trace(volume, options=TraceOptions(**options))


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5, 6), (0, 5, 6)])
def test_a_volume_has_three_axes_and_voxels(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"\(z, y, x\)"):
        trace(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "colour"},
        {"connectivity": 4},
        {"cost": "time"},
        {"trees": "two"},
        {"spacing": (1, 1)},
        {"spacing": (1, 0, 1)},
        {"largest_foreground_share": 0},
        {"shortest_segment": -1},
        {"bridge_distance": float("nan")},
        {"bridge_angle_degrees": 181},
        {"resample_step": float("inf")},
        {"soma_radius": 0},
        {"roots": ()},
        {"roots": ((1, 2),)},
        {"kind": "mask", "threshold": 1.0},
        {"cost": "log_probability"},
    ],
)
def test_wrong_options_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong)).split("_")[0]):
        TraceOptions(**wrong)


def test_a_volume_of_one_slice_or_one_line_is_traced() -> None:
    flat = np.zeros((1, 60, 60), np.uint8)
    flat[0, 30, 5:55] = 200
    for volume in (flat, flat[:, 30:31]):
        tree = trace(volume, options=TraceOptions(threshold=100, largest_foreground_share=1.0))
        assert topology(tree)[1:4] == (1, 0, 1)
        assert tree.length > 45


# --- real neurons ----------------------------------------------------------------------------------------------------


def real(data_folder: Path, name: str) -> tuple[np.ndarray, Tree]:
    folder = data_folder / "neurons" / "real_traced"
    return tifffile.imread(folder / f"{name}.tif"), read_swc(folder / f"{name}.swc")


@pytest.mark.data
@pytest.mark.slow
def test_neuron_b_is_traced_better_than_the_peers_do(data_folder: Path) -> None:
    volume, gold = real(data_folder, "neuron_b")
    tree = trace(volume)
    assert tubes.f2(tree, gold) >= 0.93
    assert tubes.mean_distance(tree, gold) <= 0.90
    assert (tree.kind == SOMA).sum() == 1


@pytest.mark.data
@pytest.mark.slow
def test_neuron_a_is_traced_as_far_as_it_can_be_seen(data_folder: Path) -> None:
    volume, gold = real(data_folder, "neuron_a")
    tree = trace(volume)
    assert tubes.f2(tree, gold, inside=volume.shape) >= 0.76
    root = tree.positions[tree.roots[0]]
    assert tree.kind[tree.roots[0]] == SOMA
    assert np.linalg.norm(root - np.array(volume.shape[::-1]) / 2) < 15


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["neuron_a", "neuron_b"])
def test_other_programs_open_the_traces_of_real_neurons(data_folder: Path, tmp_path: Path, name: str) -> None:
    morphio = pytest.importorskip("morphio", reason="MorphIO is not installed; it only confirms our SWC files")
    neurom = pytest.importorskip("neurom", reason="NeuroM is not installed; it only confirms our SWC files")
    tree = trace(real(data_folder, name)[0])
    write_swc(tmp_path / "tree.swc", tree, units="voxels")
    assert len(morphio.Morphology(str(tmp_path / "tree.swc")).soma.points) == 1
    length = neurom.get("total_length", neurom.load_morphology(tmp_path / "tree.swc"))
    assert length == pytest.approx(tree.length, rel=0.01)  # edges to the soma are no neurites


def olfactory_neuron(data_folder: Path) -> Tree:
    return translate(read_swc(data_folder / "neurons" / "gold_swc" / "OP_1.swc"), (0, 0, 2))


@pytest.mark.data
@pytest.mark.slow
def test_a_perfect_mask_of_a_real_shape_gives_the_shape_back(data_folder: Path) -> None:
    gold = olfactory_neuron(data_folder)
    thin = Tree(gold.positions, 0.6 * gold.radius, gold.parent, gold.kind)
    mask = draw_tubes(thin, (60, 512, 512), spacing=(3, 1, 1), slack=0.0, least_radius=0.8)
    tree = trace(mask, options=TraceOptions(spacing=(3, 1, 1)))
    assert tubes.f2(tree, gold) >= 0.995
    assert tubes.mean_distance(tree, gold) <= 0.5


@pytest.mark.data
@pytest.mark.slow
def test_a_clean_image_of_a_real_shape_is_traced_better_than_the_peers_do(data_folder: Path) -> None:
    gold = olfactory_neuron(data_folder)
    image = render_neuron(gold, (60, 512, 512), Microscope(), seed=0).image
    assert tubes.f2(trace(image), gold) >= 0.96
