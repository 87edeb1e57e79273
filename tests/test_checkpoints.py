"""Weight files of every kind, and those that are not what they seem."""

import os

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from mobilenets import architectures
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.checkpoints import read, tensors_of
from mobilenets.training.ported import _read_names

V3_SMALL = architectures.network("v3_small")
ARRAYS = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bn.num_batches_tracked": np.array(7)}


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV3Small((64, 64, 3), alpha=0.75, weights=None, classes=10)


@pytest.mark.parametrize("kind", ["keras", "legacy h5"])
def test_keras_files_give_the_weights_of_the_model(small, tmp_path, kind):
    path = tmp_path / ("model.keras" if kind == "keras" else "weights.h5")
    if kind == "keras":
        small.save(path)
    else:  # as keras.applications publishes them
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, small)
    found, expected = read(path, V3_SMALL, 0.75), tensors_of(small)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_weights_of_another_width_are_refused(small, tmp_path):
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(tmp_path / "weights.h5", "w") as file:
        save_weights_to_hdf5_group(file, small)
    with pytest.raises(UserError, match="not the weights of keras.applications.MobileNetV3Small at alpha 1"):
        read(tmp_path / "weights.h5", V3_SMALL, 1.0)


def test_safetensors(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    found = read(tmp_path / "model.safetensors", V3_SMALL, 1.0)
    assert list(found) == ["conv.weight"]
    np.testing.assert_array_equal(found["conv.weight"], ARRAYS["conv.weight"])


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"epoch": 3, "state_dict": tensors}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorch_files(tmp_path, wrap, prefix):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = {prefix + name: torch.from_numpy(value) for name, value in ARRAYS.items()}
    torch.save(wrap(tensors), tmp_path / "model.pth")
    found = read(tmp_path / "model.pth", V3_SMALL, 1.0)
    assert list(found) == ["conv.weight"]
    np.testing.assert_array_equal(found["conv.weight"], ARRAYS["conv.weight"])


class Attack:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pytorch_file_is_not_run(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.save({"conv.weight": Attack(tmp_path / "attacked")}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="not a file of weights alone"):
        read(tmp_path / "model.pth", V3_SMALL, 1.0)
    assert not (tmp_path / "attacked").exists()


def test_what_would_unpack_to_more_than_any_network_is_refused(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"logits"]
        file.create_group("logits").attrs["weight_names"] = [b"bias"]
        file["logits"].create_dataset("bias", (2 * 10**9,), np.float32)
    assert (tmp_path / "model.h5").stat().st_size < 10_000
    with pytest.raises(UserError, match="2000000000 classes"):
        read(tmp_path / "model.h5", V3_SMALL, 1.0)
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.save({"conv.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 10_000
    with pytest.raises(UserError, match="unpacks to more"):
        read(tmp_path / "model.pth", V3_SMALL, 1.0)
    torch.save({"conv.weight": torch.eye(3).to_sparse()}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="no plain arrays"):
        read(tmp_path / "model.pth", V3_SMALL, 1.0)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.keras", "model.h5"])
def test_damaged_files_are_told_in_one_line(tmp_path, name):
    if name.endswith(".pth"):
        pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(UserError) as caught:
        read(tmp_path / name, V3_SMALL, 1.0)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_what_is_no_weight_file_is_told(tmp_path):
    save_file({"conv.weight": np.array([1.0, np.nan], np.float32)}, tmp_path / "nan.safetensors")
    (tmp_path / "model.onnx").touch()
    for name, words in (
        ("nan.safetensors", "'conv.weight' holds values that are not numbers"),
        ("model.onnx", "weights must be one of .pth"),
        ("missing.pth", "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            read(tmp_path / name, V3_SMALL, 1.0)


def test_the_file_that_is_read_is_not_replaced(small, tmp_path, cli):
    small.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").read_bytes()
    status, out, err = cli(
        *("weights", tmp_path / "model.keras", "--net", "v3-small", "--alpha", "0.75", "--from", "keras"),
        *("-o", tmp_path, "--overwrite"),
    )
    assert (status, out) == (2, "")
    assert "would be replaced" in err
    assert (tmp_path / "model.keras").read_bytes() == before


def test_a_file_where_the_directory_should_be_is_told_in_one_line(small, tmp_path, cli):
    small.save(tmp_path / "model.keras")
    (tmp_path / "file").write_text("mine")
    status, out, err = cli(
        *("weights", tmp_path / "model.keras", "--net", "v3-small", "--alpha", "0.75", "--from", "keras"),
        *("-o", tmp_path / "file"),
    )
    assert (status, out) == (2, "")
    assert "a file stands where a directory is needed" in err
    assert err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_the_classes_of_a_ported_model_can_be_named(small, tmp_path, cli):
    small.save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("".join(f"thing {index}\n" for index in range(10)))
    arguments = ("weights", tmp_path / "model.keras", "--net", "v3-small", "--alpha", "0.75", "--from", "keras")
    status, _, err = cli(*arguments, "-o", tmp_path / "run", "--classes", tmp_path / "names.txt", "--json")
    assert status == 0, err
    from mobilenets.card import read_card

    card = read_card(tmp_path / "run")
    assert card["classes"][3] == "thing 3"
    assert card["conventions"]["padding"] == "same"
    (tmp_path / "names.txt").write_text("one\n")
    status, _, err = cli(*arguments, "-o", tmp_path / "other", "--classes", tmp_path / "names.txt")
    assert status == 2
    assert "names 1 classes, but the weights tell 10 apart" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffcat\r\nhu\u0308hner\r\n".encode(),  # as Windows saves it, and letters as macOS writes them
        "cat\nhühner\n\n".encode(),
        "  cat \n\nhu\u0308hner".encode(),
    ],
)
def test_a_list_of_classes_is_read_as_names_of_folders_are(tmp_path, text):
    (tmp_path / "names.txt").write_bytes(text)
    assert _read_names(tmp_path / "names.txt") == ["cat", "h\u00fchner"]


def test_classes_that_look_alike_are_one(tmp_path):
    (tmp_path / "names.txt").write_text("hu\u0308hner\nh\u00fchner\n", encoding="utf-8")
    with pytest.raises(UserError, match="a class name stands twice"):
        _read_names(tmp_path / "names.txt")
