"""Weight files: exact round trip, and no way in for code or foreign tensors."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import medwave
from medwave.core.errors import InputError, MissingFileError, OutputError
from medwave.models import (
    FibreNet,
    WaveUNet,
    WiNet,
    load_weights,
    mean_network,
    open_network,
    read_foreign_checkpoint,
    read_weights_info,
    save_weights,
    shipped_weights,
    winet_diff,
)
from medwave.models.weights import NEURON_WEIGHTS, SHIPPED, weight_file


class Bomb:
    """A pickle that writes a file when it is opened carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    model = winet_diff(2, "db4")
    return model, save_weights(model, tmp_path / "net.safetensors", provenance="synthetic brains, CC0")


def header(**changes):
    options = json.dumps(WiNet(2).options)
    base = {
        "format": "medwave-weights-1",
        "model": "WiNet",
        "options": options,
        "medwave_version": "0.1.0",
        "provenance": "",
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def test_weights_come_back_bit_for_bit(saved):
    model, path = saved
    torch.manual_seed(2)
    other = winet_diff(2, "db4")
    info = load_weights(other, path)
    options = {"width": 2, "wavelet": "db4", "diffeomorphic": True, "spacing_mm": 1.0}
    assert (info.model, info.options) == ("WiNet", options)
    assert (info.medwave_version, info.provenance) == (medwave.__version__, "synthetic brains, CC0")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert info == read_weights_info(path)


def test_channels_last_weights_are_saved_and_no_scrap_is_left(saved, tmp_path):
    model, path = saved
    model.to(memory_format=torch.channels_last_3d)
    save_weights(model, path)
    load_weights(winet_diff(2, "db4"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_weights_of_another_network_are_refused_and_change_nothing(saved):
    _, path = saved
    for other in (WiNet(2, "db4"), winet_diff(2, "haar"), winet_diff(4, "db4")):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(InputError, match="do not fit"):
            load_weights(other, path)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path):
    for length in range(0, 264, 8):
        path = save_weights(WiNet(2), tmp_path / "net.safetensors", provenance="x" * length)
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert read_weights_info(path).provenance == "x" * length


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_opened(tmp_path, zipped):
    path, mark = tmp_path / "evil.safetensors", tmp_path / "mark"
    if zipped:
        torch.save({"weights": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"weights": Bomb(mark)}, protocol=2))
    for read in (lambda: load_weights(WiNet(2), path), lambda: read_weights_info(path)):
        with pytest.raises(InputError, match=r"pickle.*safetensors"):
            read()
    with pytest.raises(InputError, match="could run code"):
        read_foreign_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 40, b"\xff" * 8 + b"{}", (1 << 40).to_bytes(8, "little") + b"{}", b"<html>not found</html>"],
    ids=["empty", "zeros", "endless header", "huge header", "web page"],
)
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.safetensors"):
        load_weights(WiNet(2), path)


def test_a_truncated_file_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_weights(winet_diff(2, "db4"), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "not a medwave weight file"),
        ({"format": "medwave-weights-99"}, "not a medwave weight file"),
        ({"options": "{"}, "damaged"),
        ({"options": "[1]"}, "damaged"),
        ({"options": "[" * 100_000}, "damaged"),
        ({"model": None}, "damaged"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, changes, message):
    path = tmp_path / "net.safetensors"
    save_file(WiNet(2).state_dict(), path, metadata=header(**changes))
    with pytest.raises(InputError, match=message):
        load_weights(WiNet(2), path)


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    good = WiNet(2).state_dict()
    first = next(iter(good))
    spoiled = {
        "missing": {name: tensor for name, tensor in good.items() if name != first},
        "unknown": good | {"extra": torch.zeros(1)},
        "shape": good | {first: torch.zeros(2, 2)},
        "finite": good | {first: torch.full_like(good[first], torch.nan)},
    }
    for message, tensors in spoiled.items():
        save_file(tensors, path, metadata=header())
        with pytest.raises(InputError, match=message):
            load_weights(WiNet(2), path)
    save_file(good, path, metadata=header())
    load_weights(WiNet(2), path)


def test_missing_files_and_folders_are_told(tmp_path):
    for read in (lambda p: load_weights(WiNet(2), p), read_weights_info, read_foreign_checkpoint):
        with pytest.raises(MissingFileError, match="absent"):
            read(tmp_path / "absent.safetensors")
    with pytest.raises(OutputError, match="nowhere"):
        save_weights(WiNet(2), tmp_path / "nowhere" / "net.safetensors")
    with pytest.raises(InputError, match="options"):
        save_weights(torch.nn.Linear(1, 1), tmp_path / "net.safetensors")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_tensors_of_foreign_checkpoints_are_read(tmp_path, wrap):
    path = tmp_path / "net.pt"
    state = {"layer.weight": torch.arange(6.0).view(2, 3)}
    torch.save(wrap(state), path)
    found = read_foreign_checkpoint(path)
    assert list(found) == ["layer.weight"]
    assert torch.equal(found["layer.weight"], state["layer.weight"])


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"epoch": 3}])
def test_foreign_checkpoints_without_tensors_are_refused(tmp_path, content):
    path = tmp_path / "net.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match="names to tensors"):
        read_foreign_checkpoint(path)


def test_a_weight_file_opens_as_the_network_it_describes(tmp_path):
    torch.manual_seed(0)
    model = WaveUNet(4, "db2", variant="v3").eval()
    path = save_weights(model, tmp_path / "net.safetensors")
    opened = open_network(path, FibreNet)
    assert isinstance(opened, WaveUNet)
    assert opened.options == model.options
    assert not opened.training
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(opened(image), model(image))


def test_weights_of_another_kind_or_with_odd_options_do_not_open(saved, tmp_path):
    with pytest.raises(InputError, match="weights of a FibreNet are needed, these are of WiNet"):
        open_network(saved[1], FibreNet)
    odd = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(1)}, odd, metadata=header(options='{"size": 2}'))
    with pytest.raises(InputError, match="its options do not build a WiNet"):
        open_network(odd, WiNet)


def test_every_shipped_network_has_its_card_and_is_small():
    folder = shipped_weights("brain").parent
    assert {shipped_weights(name) for name in SHIPPED} == set(folder.glob("*.safetensors"))
    for path in folder.glob("*.safetensors"):
        assert path.stat().st_size < 6e6
        assert path.with_suffix(".md").is_file()


@pytest.mark.parametrize("name", NEURON_WEIGHTS)
def test_a_shipped_network_opens_tells_its_origin_and_has_its_card(name):
    path = shipped_weights(name)
    network = open_network(path, FibreNet)
    assert sum(p.numel() for p in network.parameters()) == 810_594
    assert path.stat().st_size < 5e6
    assert "synthetic volumes of grown trees" in read_weights_info(path).provenance
    assert "810,594 parameters" in path.with_suffix(".md").read_text()


def test_weights_that_do_not_come_with_medwave_are_refused():
    with pytest.raises(InputError, match="are neuron, neuron_noise, brain, got 'heart'"):
        shipped_weights("heart")


@pytest.mark.parametrize(("name", "kind"), [("neuron", FibreNet), ("neuron_noise", FibreNet), ("brain", WiNet)])
def test_shipped_weights_are_taken_by_name_from_any_folder(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder is no weight file
    by_name, by_path = open_network(name, kind), open_network(shipped_weights(name), kind)
    assert all(torch.equal(tensor, by_path.state_dict()[key]) for key, tensor in by_name.state_dict().items())
    assert read_weights_info(Path(name)) == read_weights_info(shipped_weights(name))
    assert weight_file(name) == shipped_weights(name)


def test_a_file_of_the_name_in_the_current_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(WiNet(2), tmp_path / "brain", provenance="my own")
    assert read_weights_info("brain").provenance == "my own"
    assert open_network("brain", WiNet).options["width"] == 2


@pytest.mark.parametrize("name", ["heart", "runs/brain", "brain.safetensors", "BRAIN", ""])
def test_a_name_that_is_neither_file_nor_shipped_is_refused_with_the_names_there_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (weight_file, read_weights_info, lambda n: open_network(n, WiNet), lambda n: load_weights(WiNet(2), n)):
        with pytest.raises(MissingFileError, match=r"no such weight file; .* are called neuron, neuron_noise, brain$"):
            read(name)
    with pytest.raises(MissingFileError, match=r"no such weight file$"):
        read_foreign_checkpoint("neuron")  # its names are files only


def test_the_shipped_winet_aligns_people_it_has_never_seen(data_folder, tmp_path):
    from medwave import fields
    from medwave.data import LabelMapPairs, read_label_maps
    from medwave.losses import LabelOverlap
    from medwave.transforms.label_images import STRUCTURES

    for number in (18, 19, 20):
        source = data_folder / "brains" / "label_maps" / f"training_seg_{number}.nii.gz"
        (tmp_path / source.name).symlink_to(source)
    pair = LabelMapPairs(read_label_maps(tmp_path), 6, spacing_mm=2.0, varied=False)[1]
    moving, fixed = (pair[role][None] for role in ("moving", "fixed"))
    network = open_network(shipped_weights("brain"), WiNet)
    assert network.spacing_mm == 2.0
    assert "1,418,573 parameters" in shipped_weights("brain").with_suffix(".md").read_text()
    with torch.inference_mode():
        found = network(moving, fixed)
        overlap = LabelOverlap(len(STRUCTURES))
        labels = pair["moving_labels"][None], pair["fixed_labels"][None]
        before, after = (1 - float(overlap(field, *labels)) for field in (torch.zeros_like(found), found))
    assert after > before + 0.05
    assert float(fields.jacobian_determinant(found).min()) > 0


@pytest.mark.parametrize(("name", "black_levels"), [("neuron", 0.5), ("neuron_noise", 0.0)])
def test_a_shipped_network_finds_fibre_it_has_never_seen(name, black_levels):
    from medwave.data import SyntheticNeurons

    network = open_network(shipped_weights(name), FibreNet)
    both = truth = found = 0
    for index in range(3):
        item = SyntheticNeurons(3, seed=77, black_levels=black_levels)[index]
        with torch.inference_mode():
            made = network(item["image"][None]).argmax(1)[0] == 1
        true = item["label"][0] == 1
        both, truth, found = both + (made & true).sum(), truth + true.sum(), found + made.sum()
    assert both / (truth + found - both) > 0.4


def test_a_weight_file_has_the_permissions_of_any_file(tmp_path):
    (tmp_path / "plain").touch()
    assert save_weights(WaveUNet(4), tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_mean_of_networks_has_the_mean_of_their_tensors(tmp_path):
    torch.manual_seed(4)
    networks = [WaveUNet(4, variant="v3"), WaveUNet(4, variant="v3", border="replicate")]
    paths = [save_weights(network, tmp_path / f"{n}.safetensors") for n, network in enumerate(networks)]
    mean = mean_network(paths, FibreNet)
    assert mean.options["border"] == "replicate"
    for name, tensor in mean.state_dict().items():
        both = [network.state_dict()[name] for network in networks]
        torch.testing.assert_close(tensor.double(), (both[0].double() + both[1].double()) / 2, rtol=1e-6, atol=1e-7)
    odd = save_weights(WaveUNet(5, variant="v3"), tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"odd\.safetensors: its tensors do not fit"):
        mean_network([odd, paths[0]], FibreNet)
    with pytest.raises(InputError, match="at least one"):
        mean_network([], FibreNet)
