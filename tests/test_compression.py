"""Training for integers and learning from a teacher: what is simulated is what the files compute."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

from exported import card_of, copy, one_line, quick_compression, shortened, write_card
from mobilenets.architectures import network
from mobilenets.compression.qat import simulated, train_quantized
from mobilenets.compression.quantization import Quantization, read_quantization
from mobilenets.compression.scheme import integer_form, make_scheme, takes_four_bits, whole_mean
from mobilenets.data import ImageData, Split
from mobilenets.data.resizing import resize
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import LINEAR, Op
from mobilenets.models.saving import load_model
from mobilenets.training import checkpoint
from mobilenets.training.classify import train
from mobilenets.training.distill import Lesson, load_teacher
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings
from test_deployment_files import build, operators, pixels
from test_training import TINY, striped_data

SETTINGS = Settings(epochs=12, batch_size=16, learning_rate=0.1, label_smoothing=0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_compression(monkeypatch)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return striped_data()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A model directory of a network that tells stripes apart."""
    out = tmp_path_factory.mktemp("trained") / "model"
    train(data, out, TINY, 0.25, settings=SETTINGS, quiet=True)
    return out


def ranges_of(model, images) -> dict[str, tuple[float, float]]:
    return calibrate(integer_form(graph_of(model)), list(images))


# -- the simulation -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param("v1", marks=pytest.mark.backend), "v2", "v3_small", "v4_conv_small", "v4_hybrid_medium"]
)
def test_the_simulation_computes_what_the_files_compute(name, tmp_path):
    """Random weights, for which eight bits are hard: what is left is far below what the integers themselves cost."""
    model, images = build(name), pixels(count=32)
    exact = np.asarray(model.predict_on_batch(images))
    writer = Writer(model, list(images[:8]))
    for target, bits in (("litert", 8), ("onnx", 7)):
        network = simulated(model, ranges_of(model, images[:8]), weight_bits=bits)
        found = np.asarray(network.predict_on_batch(images))
        if all(pytest.importorskip(package) for package in TARGETS[target].packages):
            path = writer.write(Variant(target, "int8", batch=TARGETS[target].batch), tmp_path)
            written = load(path, TARGETS[target].runtime)(images)
            cost = np.sqrt(((written - exact) ** 2).mean())
            assert cost > 1e-3, target  # integers do cost something here
            # A sum that lies between two integers is rounded up in one and down in the other, and with random weights
            # one of them changes every value some layers later; most images have none.
            assert np.median(np.abs(written - found)) < 0.1 * cost, target


@pytest.mark.parametrize(
    "name", [pytest.param("v1", marks=pytest.mark.backend), pytest.param("v2", marks=pytest.mark.long)]
)
def test_the_simulation_rounds_as_onnx_runtime_does_to_the_last_digit(name, tmp_path):
    """As the graph that training compiles, with the scaling that ported weights have: sums, weights, everything."""
    pytest.importorskip("onnxruntime")
    ported = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    model, images = build(name, conventions=ported), pixels(count=32)
    found = simulated(model, ranges_of(model, images[:8]), weight_bits=7).predict(images, verbose=0)
    path = Writer(model, list(images[:8])).write(Variant("onnx", "int8"), tmp_path)
    same = np.abs(load(path, "onnxruntime")(images) - found).max(axis=1) < 1e-5
    assert same.mean() >= 0.9


@pytest.mark.parametrize("name", ["v1", pytest.param("v3_small", marks=pytest.mark.long)])
def test_files_compute_with_weights_of_four_bits_as_the_simulation_does(name, tmp_path):
    model, images = build(name), pixels(count=32)
    exact, limits = np.asarray(model.predict_on_batch(images)), ranges_of(model, images[:8])
    found = np.asarray(simulated(model, limits, weight_bits=4).predict_on_batch(images))
    cost = np.sqrt(((found - exact) ** 2).mean())
    writer = Writer(model, [], Quantization("qat", limits, weight_bits=4))
    for target, batches in (("litert", (1, None)), ("onnx", (None,)), ("openvino", (1,))):
        for package in TARGETS[target].packages:
            pytest.importorskip(package)
        for batch in batches:
            path = writer.write(Variant(target, "int8", batch=batch), tmp_path)
            written = load(path, TARGETS[target].runtime)(images)
            # OpenVINO's files round in other places, with weights of 8 bits too.
            assert np.median(np.abs(written - found)) < (0.1 if target == "openvino" else 0.01) * cost, (target, batch)


def test_layers_left_in_float_are_computed_so_in_simulation_and_file(tmp_path):
    model, images = build("v1", alpha=0.25), pixels(count=16)
    limits = ranges_of(model, images[:8])
    floats = ("block1_depthwise", "logits")
    whole = np.asarray(simulated(model, limits).predict_on_batch(images))
    mixed = np.asarray(simulated(model, limits, floats).predict_on_batch(images))
    assert np.abs(whole - mixed).max() > 1e-4
    path = Writer(model, [], Quantization("qat", limits, floats)).write(Variant("litert", "int8"), tmp_path)
    assert np.median(np.abs(load(path)(images) - mixed)) < 1e-4
    kinds = [types[-1] for kind, types in operators(path) if kind in ("DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert kinds.count("FLOAT32") == 2


@pytest.mark.long
@pytest.mark.parametrize("target", ["litert", "onnx", "openvino"])
def test_files_carry_the_trained_ranges(target, tmp_path):
    for package in TARGETS[target].packages:
        pytest.importorskip(package)
    model, images = build("v3_small", alpha=0.25), pixels(count=8)
    limits = ranges_of(model, images)
    narrow = {name: (low / 8, high / 8) for name, (low, high) in limits.items()}
    variant = Variant(target, "int8", batch=TARGETS[target].batch)
    expected = np.asarray(simulated(model, narrow).predict_on_batch(images))
    written = load(Writer(model, [], Quantization("qat", narrow)).write(variant, tmp_path / "narrow"))(images)
    usual = load(Writer(model, [], Quantization("qat", limits)).write(variant, tmp_path / "usual"))(images)
    assert np.abs(written - expected).mean() < 0.5 * np.abs(usual - expected).mean()
    calibrated = load(Writer(model, list(images)).write(variant, tmp_path / "calibrated"))(images)
    np.testing.assert_allclose(usual, calibrated, atol=0.05 if target == "openvino" else 1e-6)


def test_ranges_of_another_model_are_refused():
    model = build("v1", alpha=0.25)
    limits = ranges_of(model, pixels())
    limits.pop("block3_pointwise")
    for form in (integer_form, whole_mean):
        with pytest.raises(UserError, match="no range for 'block3_pointwise'"):
            Quantization("qat", limits).scheme(form(graph_of(model)))


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {"method": "qat"},
        {"method": "qat", "ranges": {"a": [0, float("nan")]}},
        {"method": "qat", "ranges": {"a": [1, 0]}},
        {"method": "qat", "ranges": {"a": 1}},
        {"method": "qat", "ranges": {}, "weight_bits": 3},
        {"method": "qat", "ranges": {}, "floats": "all"},
    ],
)
def test_a_damaged_card_is_told(entry, tmp_path):
    with pytest.raises(UserError, match="quantization must hold the ranges"):
        read_quantization({"quantization": entry}, tmp_path)


@pytest.mark.parametrize(("name", "share"), [("v1", 0.96), ("v3_large", 0.95), ("v4_conv_small", 0.95)])
def test_nearly_all_weights_may_have_four_bits(name, share):
    """Those of 1x1 convolutions and of the head."""
    graph = integer_form(graph_of(build(name)))
    linear = {op.name: op for op in graph.ops if op.kind in LINEAR}
    narrow = make_scheme(graph, {}, weight_bits=4).narrow
    assert {op.name for op in linear.values() if op.kind == "depthwise" or op.kernel.shape[0] == 3} <= set(
        linear
    ) - narrow
    sizes = {name: op.kernel.size for name, op in linear.items()}
    assert sum(sizes[name] for name in narrow) > share * sum(sizes.values())
    assert not make_scheme(graph, {}, floats=["logits"], weight_bits=4).narrow & {"logits"}
    assert not make_scheme(graph, {}).narrow


def test_what_xnnpack_takes_no_four_bits_for_keeps_eight():
    def conv(size: int = 1, channels: int = 8, **fields) -> Op:
        return Op("op", "conv", ("image",), (4, 4, 6), kernel=np.zeros((size, size, channels, 6)), **fields)

    assert takes_four_bits(conv())
    for other in (conv(3), conv(channels=7), conv(stride=2), conv(margins=(1, 1, 1, 1))):
        assert not takes_four_bits(other)
    assert takes_four_bits(replace(conv(), kind="dense", kernel=np.zeros((8, 6))))
    assert not takes_four_bits(replace(conv(), kind="dense", kernel=np.zeros((7, 6))))


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_training_for_integers_mends_what_they_broke(data, trained, tmp_path):
    """Ranges a third as wide as they should be; the weights and the ranges find a way."""
    model = load_model(trained)
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    limits = {name: (low / 3, high / 3) for name, (low, high) in ranges_of(model, data.train.images[:32]).items()}
    broken = loss(simulated(model, limits), data)
    settings = replace(SETTINGS, epochs=4, learning_rate=0.01, warmup_epochs=0)
    _, quantization, network = train_quantized(
        model, data, settings, tmp_path, checkpoint.State({}), limits, reporter=silent
    )
    assert loss(network, data) < 0.5 * broken
    assert quantization.ranges["stem"][1] > 1.2 * limits["stem"][1]
    # What the card will say is what was trained.
    np.testing.assert_allclose(
        simulated(model, quantization.ranges).predict_on_batch(data.val.images),
        network.predict_on_batch(data.val.images),
        atol=1e-5,
    )
    for weight, was in zip(model.weights, before, strict=True):
        moved = np.abs(np.asarray(keras.ops.convert_to_numpy(weight)) - was).max() > 0
        assert moved == ("moving" not in weight.path), weight.path


def test_training_for_weights_of_four_bits_makes_files_that_hold_them(data, trained, tmp_path):
    model = load_model(trained)
    limits = ranges_of(model, data.train.images[:32])
    broken = loss(simulated(model, limits, weight_bits=4), data)
    settings = replace(SETTINGS, epochs=2, learning_rate=0.01, warmup_epochs=0)
    _, quantization, network = train_quantized(
        model, data, settings, tmp_path, checkpoint.State({}), limits, weight_bits=4, reporter=silent
    )
    assert loss(network, data) < 0.9 * broken
    read = read_quantization({"quantization": json.loads(json.dumps(quantization.asdict()))}, tmp_path)
    path = Writer(model, [], read).write(Variant("litert", "int8"), tmp_path)
    assert {types[1] for kind, types in operators(path) if kind == "FULLY_CONNECTED"} == {"INT4"}
    images = data.val.images
    assert np.median(np.abs(load(path)(images) - network.predict_on_batch(images))) < 1e-4


def loss(model, data: ImageData) -> float:
    outputs = np.asarray(model.predict_on_batch(data.val.images))
    return float(-np.log(outputs[np.arange(len(outputs)), data.val.labels] + 1e-9).mean())


def silent(epochs: int, steps: int) -> Reporter:
    return Reporter(epochs, steps, True)


@pytest.mark.long
def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(data, trained, tmp_path):
    class Stopped(Exception):
        pass

    class Stopping(Reporter):
        def end(self, state):
            raise Stopped

    settings = Settings(epochs=2, batch_size=16, learning_rate=0.01, warmup_epochs=0)
    found = []
    for stop in (False, True):
        model, directory = load_model(trained), tmp_path / str(stop)
        directory.mkdir()
        limits = ranges_of(model, data.train.images[:16])
        if stop:
            with pytest.raises(Stopped):
                train_quantized(
                    model,
                    data,
                    settings,
                    directory,
                    checkpoint.State({}),
                    limits,
                    reporter=lambda epochs, steps: Stopping(epochs, steps, True),
                )
            model = load_model(trained)
        state = checkpoint.load(directory) or checkpoint.State({})
        assert state.epoch == int(stop)
        _, quantization, network = train_quantized(model, data, settings, directory, state, limits, reporter=silent)
        found.append((quantization.ranges, network.predict_on_batch(data.val.images)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


# -- distillation ---------------------------------------------------------------------------------------------------


def test_the_loss_of_a_lesson_is_that_of_the_papers():
    rng = np.random.default_rng(0)
    labels = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 8)]
    teacher, student = (rng.normal(0, 2, (8, 5)).astype(np.float32) for _ in range(2))
    theirs, ours = (rng.normal(0, 1, (8, width)).astype(np.float32) for width in (6, 3))

    def softmax(values):
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def similarity(features):
        products = features @ features.T
        return products / np.linalg.norm(products, axis=1, keepdims=True)

    hard = -(labels * np.log(softmax(student))).sum(axis=1)
    p, q = softmax(teacher / 3), softmax(student / 3)
    soft = 9 * (p * (np.log(p) - np.log(q))).sum(axis=1)
    alike = ((similarity(ours) - similarity(theirs)) ** 2).sum() / 8**2  # equation 4 of arXiv 1907.09682
    network = keras.Sequential([keras.Input((11,)), keras.layers.Identity()])
    lesson = Lesson(network, 5, 3.0, 0.6, 2.0)
    told, said = np.concatenate([labels, teacher, theirs], axis=1), np.concatenate([student, ours], axis=1)
    found = keras.ops.convert_to_numpy(
        lesson.loss(keras.ops.convert_to_tensor(told), keras.ops.convert_to_tensor(said))
    )
    np.testing.assert_allclose(found.mean(), (0.4 * hard + 0.6 * soft).mean() + 2 * alike, rtol=1e-5)
    right = keras.ops.convert_to_numpy(lesson.accuracy(told, said))
    np.testing.assert_array_equal(right, student.argmax(axis=1) == labels.argmax(axis=1))


@pytest.mark.long
@pytest.mark.parametrize("hint", [0.0, pytest.param(1.0, marks=pytest.mark.backend)])
def test_a_student_learns_from_its_teacher_what_its_labels_hide(data, trained, tmp_path, hint):
    rng = np.random.default_rng(0)
    lies = replace(data, train=Split(data.train.images, rng.permutation(data.train.labels)))
    settings = replace(SETTINGS, teaching=1.0, hint=hint)
    card = train(lies, tmp_path / "student", TINY, 0.25, settings=settings, teacher=trained, quiet=True)
    assert card["training"]["teacher"] == str(trained)
    alone = train(lies, tmp_path / "alone", TINY, 0.25, settings=SETTINGS, quiet=True)
    assert card["metrics"]["accuracy"] > alone["metrics"]["accuracy"] + 0.2


@pytest.mark.parametrize("size", [12, 16, 20])
def test_student_and_teacher_see_the_same_images_each_at_its_own_size(data, trained, tmp_path, monkeypatch, size):
    shown, learned = [], []
    told, train_on_batch = Lesson.told, keras.Model.train_on_batch

    def tell(self, images, labels):
        shown.append(images)
        return told(self, images, labels)

    def learn(self, images, *others, **options):
        learned.append(images)
        return train_on_batch(self, images, *others, **options)

    monkeypatch.setattr(Lesson, "told", tell)
    monkeypatch.setattr(keras.Model, "train_on_batch", learn)
    settings = replace(SETTINGS, epochs=1, warmup_epochs=0)
    train(data, tmp_path / "student", TINY, 0.25, size, settings, teacher=trained, quiet=True)
    assert len(shown) == len(learned) > 0
    for theirs, ours in zip(shown, learned, strict=True):
        assert theirs.shape[1:] == (max(size, 16), max(size, 16), 3)  # the teacher's are 16 pixels wide
        np.testing.assert_array_equal(ours, [resize(image, size, size) for image in theirs])


def test_what_a_teacher_says_is_of_its_own_size_of_image(data, trained):
    teacher = load_teacher(trained, data.classes)
    assert teacher.output_shape[1] > len(data.classes)  # features stand behind the logits
    lesson = Lesson(teacher, len(data.classes), 1.0, 1.0, 0.0)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    labels = np.eye(len(data.classes), dtype=np.float32)[[0, 1, 0, 1]]
    said = keras.ops.convert_to_numpy(teacher(np.stack([resize(image, 16, 16) for image in images])))
    np.testing.assert_allclose(lesson.told(images, labels), np.concatenate([labels, said], axis=1), atol=1e-5)


def test_a_teacher_must_know_the_same_classes(data, trained):
    with pytest.raises(UserError, match="tells other classes apart"):
        load_teacher(trained, ("cat", "dog"))


# -- the verb -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_compress_writes_a_model_that_every_verb_takes(place, cli, tmp_path, monkeypatch):
    model = shortened(place, tmp_path, monkeypatch)
    write_card(model, card_of(model) | {"speed": {"a machine": {}}})  # which of its files is the fastest there
    before = (model / "card.json").read_bytes()
    out = tmp_path / "small"
    status, text, err = cli("compress", model, "--out", out, "--epochs", 1, "--to", "litert,onnx", "--json")
    assert status == 0, err
    card = json.loads(text)
    assert card == card_of(out)
    assert "speed" not in card
    assert (model / "card.json").read_bytes() == before
    assert not (out / "checkpoint.npz").exists()
    rows = card["compression"]["files"]
    assert [(row["when"], row["target"], row["precision"]) for row in rows] == [
        (when, target, precision)
        for target in ("litert", "onnx")
        for when, precision in (("before", "float32"), ("before", "int8"), ("after", "int8"))
    ]
    assert all(row["latency_ms"]["median"] > 0 and row["bytes"] > 0 for row in rows)
    float32, _, after = rows[:3]
    # One training for both files, of which ONNX has no more than seven bits.
    assert (card["quantization"]["weight_bits"], card["compression"]["weight_bits"]) == (7, 8)
    assert after["accuracy"] >= float32["accuracy"] - 0.01
    simulated_metrics = card["quantization"]["metrics"]
    assert abs(simulated_metrics["accuracy"] - after["accuracy"]) < 0.006
    for entry in card["artifacts"]:
        status, text, err = cli("evaluate", out / entry["file"], "--json")
        assert (status, json.loads(text)["accuracy"]) == (0, entry["metrics"]["accuracy"]), err
    status, text, err = cli("evaluate", out, "--json")
    assert (status, json.loads(text)["accuracy"]) == (0, card["metrics"]["accuracy"]), err
    # Exported again, the file is the same: its ranges are the trained ones.
    digest = {entry["file"]: entry["files"] for entry in card["artifacts"]}
    status, text, err = cli("export", out, "--precision", "int8", "--json")
    assert status == 0, err
    (entry,) = json.loads(text)["artifacts"]
    assert entry["files"] == digest[entry["file"]]
    status, text, err = cli("train", "digits", "--weights", out, "--alpha", 0.25, "--size", 32, "--epochs", 1,
                            "--out", tmp_path / "further", "--json")  # fmt: skip
    assert status == 0, err
    assert "quantization" not in json.loads(text)


@pytest.mark.slow
def test_compress_writes_files_with_weights_of_four_bits(place, cli, tmp_path):
    model, out = copy(place, tmp_path), tmp_path / "small"
    status, text, err = cli("compress", model, "--out", out, "--weight-bits", 4, "--epochs", 1, "--json")
    assert status == 0, err
    card = json.loads(text)
    assert card["quantization"]["weight_bits"] == card["compression"]["weight_bits"] == 4
    float32, eight, four = card["compression"]["files"]
    assert four["accuracy"] >= float32["accuracy"] - 0.01
    assert abs(card["quantization"]["metrics"]["accuracy"] - four["accuracy"]) < 0.006
    path = out / "export" / "model_int8.tflite"
    kernels = {kind: types[1] for kind, types in operators(path) if kind in ("FULLY_CONNECTED", "DEPTHWISE_CONV_2D")}
    assert kernels == {"FULLY_CONNECTED": "INT4", "DEPTHWISE_CONV_2D": "INT8"}
    assert four["bytes"] == path.stat().st_size < 0.75 * eight["bytes"]


def test_an_onnxruntime_that_knows_no_four_bits_is_told(place, cli, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    words = ("compress", copy(place, tmp_path), "--out", tmp_path / "small", "--to", "onnx", "--weight-bits", 4)
    one_line(cli(*words), "need onnxruntime 1.23, this is 1.22.1")
    assert not (tmp_path / "small").exists()


@pytest.mark.long
def test_calibration_that_tries_needs_no_training(place, cli, tmp_path, monkeypatch):
    model, out = shortened(place, tmp_path, monkeypatch), tmp_path / "small"
    status, text, err = cli("compress", model, "--out", out, "--int8", "ptq", "--json")
    assert status == 0, err
    card = json.loads(text)
    (stage,) = card["compression"]["stages"]
    chosen = [trial for trial in stage["trials"] if trial["chosen"]]
    assert len(stage["trials"]) == 8
    assert len(chosen) == 1
    assert chosen[0]["error"] <= stage["trials"][0]["error"]  # the first is plain calibration
    assert card["quantization"]["method"] == "ptq"
    before, _, after = card["compression"]["files"]
    assert after["accuracy"] >= before["accuracy"] - 0.01
    status, text, err = cli("export", out, "--precision", "int8", "--json")
    assert status == 0, err
    (entry,) = json.loads(text)["artifacts"]
    assert entry["files"] == card["artifacts"][0]["files"]  # with the same ranges


@pytest.mark.long
def test_sensitivity_is_a_table_and_a_picture(place, cli, tmp_path, monkeypatch):
    model, out = shortened(place, tmp_path, monkeypatch), tmp_path / "found"
    before = (model / "card.json").read_bytes()
    status, text, err = cli("compress", model, "--sensitivity", "--out", out, "--json")
    assert status == 0, err
    rows = json.loads(text)["rows"]
    assert {"stem", "logits", "block1_depthwise"} <= {row["name"] for row in rows}
    lines = (out / "sensitivity.csv").read_text().splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[1].split(",")[0] == rows[0]["name"]
    assert (out / "sensitivity.png").stat().st_size > 10_000
    assert (model / "card.json").read_bytes() == before
    status, text, err = cli("compress", model, "--sensitivity", "--out", out)
    assert status == 0, err
    assert rows[0]["name"] in text
    one_line(cli("compress", model, "--sensitivity", "--out", model), "holds a model")
    one_line(cli("compress", model, "--sensitivity", "--out", out, "--weight-bits", 5), "--weight-bits must be 8 or 4")


def test_mistakes_are_told_before_anything_is_written(place, cli, tmp_path):
    model = copy(place, tmp_path)
    out = tmp_path / "small"
    for words, told in [
        (("--out", model), "would be replaced"),
        (("--out", out, "--int8", "fp8"), "--int8 must be one of"),
        (("--out", out, "--keep-float", "block99"), "--keep-float block99"),
        (("--out", out, "--weight-bits", 3), "--weight-bits must be 8 or 4"),
        (("--out", out, "--to", "savedmodel"), "computes in float32"),
        (("--out", out, "--to", "coreml"), "--to coreml"),
        (("--out", out, "--max-drop", -1), "--max-drop"),
        (("--out", out, "--epochs", 0), "--epochs"),
        (("--out", out, "--teacher", tmp_path / "nobody"), "nobody"),
        (("--out", out, "--teaching", 0.5), "--teaching is about what a teacher says"),
        (("--out", out, "--resume"), "nothing to resume"),
    ]:
        one_line(cli("compress", model, *words), told)
        assert not out.exists(), words
    kept = copy(place, tmp_path / "other")
    one_line(cli("compress", model, "--out", kept, "--overwrite", "--keep-float", "block99"), "--keep-float block99")
    assert (kept / "model.keras").is_file()  # what stood there is replaced by something better or not at all


def test_operations_are_named_as_the_layers_that_hold_their_weights():
    """Also where the network pads by layers of its own: these are the names that --keep-float takes."""
    table = network("v2").converted(network("v2").conventions | {"padding": "symmetric"})
    model = classifier(table, (32, 32, 3), 10, 0.25)
    padded = [layer.name for layer in model.layers if layer.name.endswith("_pad")]
    assert len(padded) == 4  # of layers that halve; the stem does not, with images this small
    found = {op.name for op in integer_form(graph_of(model)).ops if op.kind in LINEAR}
    assert found == {layer.name for layer in model.layers if hasattr(layer, "kernel")}


def test_a_network_without_integers_to_train_is_refused():
    model = classifier(TINY, (16, 16, 3), 3, 0.25)
    odd = keras.layers.LeakyReLU(name="odd")(model.output)
    with pytest.raises(UserError, match="odd"):
        simulated(keras.Model(model.input, odd), {})
