"""Embedding, verification and identification: features are what the network gives, pairs and matches known answers."""

import csv
import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from medwave.core.errors import DeviceError, InputError, MissingFileError, OutputError, VolumeFormatError
from medwave.models import IResNet, WaveIResNet, save_weights
from medwave.transforms.faces import TEMPLATE, align_face, normalise
from medwave.volumes.embeddings import Embeddings, read_embeddings, write_embeddings
from medwave.workflows.recognise import embed, identify, verify, write_matches
from medwave.workflows.recognition_options import VerifyOptions
from medwave.workflows.verify_page import verify_with_page

SIZE = 32


def network(kind=IResNet, channels=3):
    torch.manual_seed(4)
    made = kind(18, width=4, image_size=(SIZE, SIZE), in_channels=channels, dimension=12)
    for layer in made.modules():  # a new block passes its input on; here all layers take part
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(network(), tmp_path_factory.mktemp("weights") / "face.safetensors")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Four people: each a texture, three views that differ by a little noise."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("faces")
    for person in ("ann", "bo", "cy", "dee"):
        (folder / person).mkdir()
        texture = rng.integers(30, 226, (SIZE // 8, SIZE // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        for view in range(1, 4):
            picture = np.clip(texture + rng.normal(0, 4, texture.shape), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / person / f"{person}_{view:04d}.png")
    return folder


def lfw_list(path, pairs):
    path.write_text("".join("\t".join(map(str, pair)) + "\n" for pair in pairs))
    return path


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


SAME = [(p, a, b) for p in ("ann", "bo", "cy", "dee") for a, b in ((1, 2), (1, 3), (2, 3))]
OTHER = [(p, v, q, w) for p, q in (("ann", "bo"), ("cy", "dee"), ("ann", "dee")) for v, w in ((1, 1), (2, 3), (3, 2))]


def test_features_never_replace_what_they_are_made_of(tmp_path, weights):
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=[0, 1])
    before = (tmp_path / "set.npz").read_bytes()
    with pytest.raises(OutputError, match=r"set\.npz: the result would replace its input"):
        embed(tmp_path / "set.npz", tmp_path / "set.npz", weights=weights)
    assert (tmp_path / "set.npz").read_bytes() == before


def test_features_are_those_of_both_mirror_images(faces, weights):
    found = embed(faces, weights=weights)
    assert found.sources[0] == "ann/ann_0001.png"
    assert found.identities == tuple(p for p in ("ann", "bo", "cy", "dee") for _ in range(3))
    pictures = np.stack([np.asarray(Image.open(faces / source)) for source in found.sources])
    x = torch.stack([normalise(p) for p in pictures])
    with torch.inference_mode():
        expected = network()(x) + network()(x.flip(-1))
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    plain = embed(faces, weights=weights, mirror=False, batch=5)
    with torch.inference_mode():
        np.testing.assert_allclose(plain.features, network()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_files_of_features_come_back_as_they_were(faces, weights, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="parquet needs the extra faces")
    found = embed(faces, tmp_path / f"x{ending}", weights=weights)
    again = read_embeddings(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(again.features, found.features)
    assert again.features.dtype == np.float32
    assert (again.sources, again.identities) == (found.sources, found.identities)
    (tmp_path / f"x{ending}").write_bytes((tmp_path / f"x{ending}").read_bytes()[:-60])
    with pytest.raises(VolumeFormatError, match=r"not a file of features .* or damaged"):
        read_embeddings(tmp_path / f"x{ending}")


def test_faces_are_aligned_by_their_points(weights, tmp_path):
    rng = np.random.default_rng(3)
    folder = tmp_path / "faces"
    (folder / "a").mkdir(parents=True)
    picture = rng.integers(0, 256, (150, 140, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "a" / "1.png")
    points = 1.1 * TEMPLATE + [8, 12]
    table = tmp_path / "points.csv"
    header = ["image"] + [f"{axis}{n}" for n in range(1, 6) for axis in "xy"]
    stream = io.StringIO()
    csv.writer(stream).writerows([header, ["a/1.png", *points.ravel()]])
    table.write_text(stream.getvalue())
    found = embed(folder, weights=weights, points=str(table), mirror=False)
    with torch.inference_mode():
        expected = network()(normalise(align_face(picture, points, (SIZE, SIZE)))[None])
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    for text, message in (
        (stream.getvalue().replace("a/1.png", "a/2.png"), "has no points for a/1.png"),
        (stream.getvalue().replace("y5", "z5"), "y5 is not"),
        (stream.getvalue() + "b.png,1,2\n", "ten finite numbers"),
        (stream.getvalue() + stream.getvalue().splitlines()[1] + "\n", "comes once"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            embed(folder, weights=weights, points=str(table))


def test_pairs_of_a_list_a_packed_file_and_of_features_agree(faces, weights, tmp_path):
    pairs = lfw_list(tmp_path / "pairs.txt", [*SAME, *OTHER])
    result = verify(pairs, images=faces, weights=weights, folds=3)
    assert result.same.tolist() == [True] * 12 + [False] * 9
    features = embed(faces, tmp_path / "x.npz", weights=weights)
    unit = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    assert result.scores[0] == pytest.approx(float(unit[0] @ unit[1]), abs=1e-5)  # ann 1, ann 2
    assert result.scores[12] == pytest.approx(float(unit[0] @ unit[3]), abs=1e-5)  # ann 1, bo 1
    assert result.scores[:12].min() > result.scores[12:].max()  # tiny noise against other textures
    assert result.accuracy.mean == 1.0
    assert result.equal_error_rate == 0.0
    assert result.auroc == 1.0
    assert result.accepted[0.1] is None  # nine pairs cannot show one in ten
    by_features = verify(pairs, embeddings=tmp_path / "x.npz", folds=3)
    np.testing.assert_allclose(by_features.scores, result.scores, atol=1e-6)
    files = [faces / f"{name}.png" for pair in zip(result.first, result.second, strict=True) for name in pair]
    packed = tmp_path / "set.bin"
    packed.write_bytes(pickle.dumps(([f.read_bytes() for f in files], result.same.tolist())))
    by_bin = verify(packed, weights=weights, folds=3, far="0.2,0.5")
    np.testing.assert_allclose(by_bin.scores, result.scores, atol=1e-6)
    assert by_bin.accepted[0.2].tar == 1.0


def test_a_verification_leaves_a_folder(faces, weights, tmp_path):
    pairs = lfw_list(tmp_path / "pairs.txt", [*SAME, *OTHER])
    result = verify_with_page(
        pairs, tmp_path / "out", images=faces, weights=weights, options=VerifyOptions(folds=3), command_line="medwave x"
    )
    rows = table(tmp_path / "out" / "scores.csv")
    assert len(rows) == 21
    assert float(rows[3]["score"]) == pytest.approx(result.scores[3], abs=1e-6)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["result"]["auroc"] == 1.0
    assert record["result"]["tar_at_far"]["0.0001"] is None
    assert set(record["inputs"]) == {"pairs", "images", "weights"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "pairs.txt was verified" in page
    assert page.count('class="curve"') == 1
    assert "ann/ann_0001" in page


def test_probes_are_found_and_strangers_are_said_to_be_such(faces, weights, tmp_path):
    found = embed(faces, weights=weights)
    gallery = [n for n, source in enumerate(found.sources) if source.endswith("0001.png") and "dee" not in source]
    probes = [n for n in range(len(found.sources)) if n not in gallery]
    for name, rows in (("gallery", gallery), ("probes", probes)):
        part = Embeddings(found.features[rows], *(tuple(t[n] for n in rows) for t in (found.sources, found.identities)))
        write_embeddings(tmp_path / f"{name}.npz", part)
    result = identify(tmp_path / "probes.npz", tmp_path / "gallery.npz")
    assert result.rank1 == 1.0
    assert result.known == 6
    assert len(result.probes) == 9
    named = dict(zip(result.probes, result.found, strict=True))
    assert named["bo/bo_0003.png"] == "bo/bo_0001.png"
    by_network = identify(faces, tmp_path / "gallery.npz", weights=weights)
    assert by_network.scores.max() == pytest.approx(1.0, abs=1e-6)
    write_matches(tmp_path / "m.csv", result)
    rows = table(tmp_path / "m.csv")
    assert [row["found_identity"] for row in rows[:2]] == ["ann", "ann"]


def test_what_does_not_fit_is_refused(faces, weights, tmp_path):
    pairs = lfw_list(tmp_path / "pairs.txt", [*SAME, *OTHER])
    with pytest.raises(InputError, match="name one"):
        verify(pairs)
    with pytest.raises(InputError, match="would find itself"):
        identify(faces, faces, weights=weights)
    with pytest.raises(InputError, match="name its --weights"):
        identify(faces, tmp_path)
    with pytest.raises(DeviceError, match="device 'foo' is not usable here"):
        embed(faces, weights=weights, device="foo")
    with pytest.raises(InputError, match=r"written as \.npz or \.parquet"):
        embed(faces, tmp_path / "x.csv", weights=weights)
    features = embed(faces, tmp_path / "x.npz", weights=weights)
    lfw_list(tmp_path / "other.txt", [("zoe", 1, 2)])
    with pytest.raises(InputError, match=r"x\.npz: has no features of zoe/zoe_0001"):
        verify(tmp_path / "other.txt", embeddings=tmp_path / "x.npz")
    with pytest.raises(MissingFileError, match="zoe_0001: no such picture"):
        verify(tmp_path / "other.txt", images=faces, weights=weights)
    write_embeddings(tmp_path / "y.npz", Embeddings(features.features[:, :5], features.sources, features.identities))
    with pytest.raises(InputError, match="features of one network"):
        identify(tmp_path / "x.npz", tmp_path / "y.npz")
    with pytest.raises(InputError, match="far: rates between 0 and 1"):
        VerifyOptions(far="2")


@pytest.mark.parametrize("blank", ["probes", "gallery"])
def test_features_without_direction_are_refused_by_name(tmp_path, blank):
    for name in ("probes", "gallery"):
        features = np.eye(3, dtype=np.float32)
        features[2] *= name != blank
        write_embeddings(tmp_path / f"{name}.npz", Embeddings(features, ("a", "b", "dark"), ("a", "b", "dark")))
    with pytest.raises(InputError, match=rf"{blank}\.npz: the features of dark are all 0.*leave this picture out"):
        identify(tmp_path / "probes.npz", tmp_path / "gallery.npz")


def test_exact_names_come_before_names_without_their_ending(tmp_path):
    rows = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    write_embeddings(tmp_path / "e.npz", Embeddings(rows, ("x", "x.png", "y", "z.png"), ("a", "b", "a", "b")))
    (tmp_path / "pairs.txt").write_text("x\ty\t1\nx\tz\t0\n" * 2)
    found = verify(tmp_path / "pairs.txt", embeddings=tmp_path / "e.npz", folds=2)
    assert found.scores.tolist() == [1, 0, 1, 0]


def test_grey_networks_with_wavelets_take_colour_pictures(faces, tmp_path):
    path = save_weights(network(WaveIResNet, channels=1), tmp_path / "w.safetensors")
    assert embed(faces, weights=path).features.shape == (12, 12)
