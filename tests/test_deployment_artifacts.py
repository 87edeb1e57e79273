"""Exported files that are damaged, swapped or none of ours: one line each, no crash and no wrong answer."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("keras")

from exported import HERE, card_of, copy, exported, one_line, samples, write_card
from mobilenets.deployment import worker
from mobilenets.deployment.artifacts import check_boxes
from mobilenets.deployment.runtimes import load

CUTS = {"nothing": 0, "ten bytes": 10, "half": 0.5, "all but a byte": -1}
PARTS = {"litert": ["model.tflite"], "onnx": ["model.onnx"], "openvino": ["model.xml", "model.bin"]}
LOOSE = [(target, part) for target, parts in PARTS.items() if target in HERE for part in parts]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return samples(tmp_path_factory.mktemp("digits") / "samples", 3)


@pytest.fixture
def loose(place, tmp_path):
    """A directory with files alone and the list of their classes, as one copies them to a device."""
    return shutil.copytree(exported(place) / "export", tmp_path / "loose")


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share) if isinstance(share, float) else share]


# -- files that a card lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
@pytest.mark.parametrize(("target", "part"), [*LOOSE, ("savedmodel", "saved_model/variables/variables.index")])
def test_a_file_that_was_cut_off_is_not_run(place, images, tmp_path, cli, target, part, verb, share):
    name = {"savedmodel": "saved_model"}.get(target) or PARTS[target][0]
    model = copy(place, tmp_path, name)
    spoilt = model / "export" / part
    spoilt.write_bytes(cut(spoilt.read_bytes(), share))
    paths = [images] if verb == "predict" else []
    one_line(cli(verb, model / "export" / name, *paths), f"{part}: is not the file that was measured")
    if verb == "predict":
        one_line(cli(verb, model, *paths), f"{part}: is not the file that was measured")


def other_model(model):
    (model / "export" / "model.tflite").write_bytes((model / "export" / "model_int8.tflite").read_bytes())


def swapped_entries(model):
    card = card_of(model)
    first, second = card["artifacts"][:2]
    first["file"], second["file"] = second["file"], first["file"]
    write_card(model, card)


def spoil(**changes):
    """Changes the card's entry of model.tflite; None removes a key."""

    def change(model):
        card = card_of(model)
        entry = card["artifacts"][0]
        assert entry["file"] == "export/model.tflite"
        for key, value in changes.items():
            entry[key] = value
            if value is None:
                del entry[key]
        write_card(model, card)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_model, "model.tflite: is not the file that was measured"),
        (swapped_entries, "is not what was measured"),
        (lambda model: (model / "export" / "model.tflite").unlink(), "model.tflite"),
        (lambda model: write_card(model, card_of(model) | {"artifacts": []}), "the card beside it does not list it"),
        (spoil(files=None), "of another version and does not tell files of export/model.tflite"),
        (spoil(files={}), "of another version and does not tell files"),
        (spoil(files=["export/model.tflite"]), "files of export/model.tflite makes no sense"),
        (spoil(files={"export/model.tflite": None}), "is not the file that was measured"),
        (spoil(files={"model.keras": "0" * 64}), "is not the file that was measured"),
        (spoil(files={"../model.tflite": "0" * 64}), "outside the directory"),
        (spoil(files={"/etc/passwd": "0" * 64}), "outside the directory"),
        (spoil(files={"export/\0": "0" * 64}), "outside the directory"),
        (spoil(files={"x" * 5000: "0" * 64}), "cannot be read"),
        (spoil(runtime="tpu"), "a runtime for export/model.tflite that is not known"),
        (spoil(runtime="onnxruntime"), "ONNX Runtime does not take such files, but .onnx"),
        (spoil(runtime=["litert"]), "runtime of export/model.tflite makes no sense"),
        (spoil(runtime=None), "does not tell runtime"),
        (spoil(precision=None), "does not tell precision"),
        (spoil(precision=8), "precision of export/model.tflite makes no sense"),
        (spoil(latency_ms={"median": "fast"}), "latency_ms.median of export/model.tflite makes no sense"),
        (spoil(latency_ms={}), "does not tell latency"),
        (spoil(metrics=[0.9]), "metrics of export/model.tflite makes no sense"),
        (spoil(file=7), "artifacts must be a list of exported files"),
        (lambda model: write_card(model, card_of(model) | {"artifacts": {"a": 1}}), "artifacts must be a list"),
        (lambda model: write_card(model, card_of(model) | {"format": 99}), "written by a newer version"),
        (lambda model: write_card(model, card_of(model) | {"preprocessing": {"crop": 7}}), "card.json: damaged"),
    ],
)
def test_a_file_that_is_not_as_its_card_says_is_not_run(place, images, tmp_path, cli, change, words):
    model = copy(place, tmp_path, "model.tflite", "model_int8.tflite")
    change(model)
    for verb, paths in (("predict", [images]), ("evaluate", [])):
        one_line(cli(verb, model / "export" / "model.tflite", *paths), words)


@pytest.mark.parametrize("classes", [["0", "1"], [*"0123456789x"]])
def test_a_card_that_names_another_number_of_classes_is_noticed(place, images, tmp_path, cli, classes):
    model = copy(place, tmp_path, "model.tflite")
    write_card(model, card_of(model) | {"classes": classes})
    file = model / "export" / "model.tflite"
    one_line(cli("predict", file, images), f"tells 10 classes apart, but {len(classes)} are named")
    one_line(cli("evaluate", file), "classes")
    one_line(cli("export", model), "do not belong together")


@pytest.mark.skipif("openvino" not in HERE, reason="OpenVINO is not installed")
def test_openvinos_parts_are_a_whole(place, images, tmp_path, cli):
    model = copy(place, tmp_path, "model.xml")
    file = model / "export" / "model.xml"
    file.with_suffix(".bin").rename(tmp_path / "aside")
    one_line(cli("predict", file, images), "model.bin: is gone")
    (tmp_path / "aside").rename(file.with_suffix(".bin"))
    assert cli("predict", file, images)[0] == 0
    card = card_of(model)
    del card["artifacts"][0]["files"]["export/model.bin"]
    write_card(model, card)
    one_line(cli("predict", file, images), "is not what was measured, it has other parts")


def test_a_savedmodel_with_another_part_is_not_run(place, images, tmp_path, cli):
    model = copy(place, tmp_path, "saved_model")
    (model / "export" / "saved_model" / "assets").mkdir()
    (model / "export" / "saved_model" / "assets" / "more.txt").write_text("more")
    one_line(cli("predict", model / "export" / "saved_model", images), "it has other parts")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: write_card(model, card_of(model) | {"format": 99}), "written by a newer version"),
        (spoil(file=None), "artifacts must be a list of exported files"),
        (spoil(runtime=["litert"]), "card.json: damaged, runtime of export/model.tflite makes no sense"),
        (spoil(metrics=[0.9]), "card.json: damaged, metrics of export/model.tflite makes no sense"),
        (spoil(files="all"), "card.json: damaged, files of export/model.tflite makes no sense"),
        (lambda model: write_card(model, card_of(model) | {"refused": [7]}), "refused must be a list"),
    ],
)
def test_export_does_not_build_on_a_damaged_card(place, tmp_path, cli, change, words):
    model = copy(place, tmp_path, "model.tflite")
    change(model)
    before = (model / "card.json").read_bytes()
    one_line(cli("export", model), words)
    assert (model / "card.json").read_bytes() == before


def test_export_writes_anew_what_an_older_version_left(place, images, tmp_path, cli):
    """As the line says that `predict` gives."""
    model = copy(place, tmp_path, "model.tflite")
    spoil(files=None, processor=None, latency_ms=None)(model)
    card = card_of(model)
    card["artifacts"].append({"file": "export/future.bin", "runtime": "tpu"})
    write_card(model, card)
    err = one_line(cli("predict", model / "export" / "model.tflite", images), "write it again with `mobilenets export")
    assert str(model) in err
    status, _, err = cli("export", model)
    assert (status, err) == (0, "")
    assert [entry["file"] for entry in card_of(model)["artifacts"]] == ["export/future.bin", "export/model.tflite"]
    assert cli("predict", model / "export" / "model.tflite", images)[0] == 0


# -- files alone ------------------------------------------------------------------------------------------------------


def test_a_file_alone_gives_what_it_gives_in_its_directory(place, images, loose, cli):
    for name in [parts[0] for target, parts in PARTS.items() if target in HERE]:
        inside = json.loads(cli("predict", exported(place) / "export" / name, images, "--json")[1])["images"]
        assert json.loads(cli("predict", loose / name, images, "--json")[1])["images"] == inside


@pytest.mark.parametrize("share", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("target", "part"), LOOSE)
def test_a_file_alone_that_was_cut_off(place, images, loose, cli, target, part, share):
    name = PARTS[target][0]
    (loose / part).write_bytes(cut((loose / part).read_bytes(), share))
    found = cli("predict", loose / name, images, "--json")
    if found[0] == 0 and share == -1:  # the last byte may be one that fills up
        inside = json.loads(cli("predict", exported(place) / "export" / name, images, "--json")[1])["images"]
        assert json.loads(found[1])["images"] == inside
        return
    one_line(found, name, "damaged")


@pytest.mark.parametrize("name", [part for _, part in LOOSE if not part.endswith(".bin")])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_garbage_is_no_file(images, loose, cli, name, verb):
    (loose / name).write_bytes(np.random.default_rng(0).bytes(5000))
    paths = [images] if verb == "predict" else ["--data", "digits"]
    one_line(cli(verb, loose / name, *paths), name, "damaged")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "nobody tells its classes"),
        (b"", "must hold a class a line"),
        (b"0\n1\n\n3\n", "no empty line"),
        (b"\xff\xfe0\x00", "no text in UTF-8"),
        (b"0\n1\n", "but 2 are named"),
        ("".join(f"{index}\n" for index in range(11)).encode(), "tells 10 classes apart, but 11 are named"),
    ],
)
def test_a_list_of_classes_that_does_not_fit(images, loose, cli, labels, words):
    (loose / "labels.txt").unlink()
    if labels is not None:
        (loose / "labels.txt").write_bytes(labels)
    one_line(cli("predict", loose / "model.tflite", images), words)
    if labels != b"0\n1\n":  # which are not those of the digits either
        one_line(cli("evaluate", loose / "model.tflite", "--data", "digits"), words)


def test_a_list_of_classes_as_windows_writes_it(images, loose, cli):
    expected = cli("predict", loose / "model.tflite", images, "--json")[1]
    names = (loose / "labels.txt").read_text().split()
    (loose / "labels.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f"{name}\r\n" for name in names).encode())
    assert cli("predict", loose / "model.tflite", images, "--json")[1] == expected


def test_a_file_alone_needs_images_to_be_evaluated_on(loose, cli):
    one_line(cli("evaluate", loose / "model.tflite"), "names no data to measure on", "--data FOLDER")


def flatbuffer(loose, change):
    """Changes model.tflite as an object of the generated reader and writer."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path = loose / "model.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model.subgraphs[0])
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # Without its kernel a convolution crashes LiteRT 2.1.
        (lambda graph: setattr(graph.operators[11], "inputs", [graph.operators[11].inputs[0], -1, 32]), "model.tflite"),
        (lambda graph: graph.operators.pop(), "fails to run it"),
        (lambda graph: setattr(graph, "inputs", [graph.operators[3].inputs[1]]), "model.tflite"),
        (lambda graph: setattr(graph, "inputs", [*graph.inputs, graph.operators[0].outputs[0]]), "has 2 inputs"),
        (lambda graph: setattr(graph, "outputs", [graph.operators[0].outputs[0]]), "model.tflite"),
        (lambda graph: setattr(graph.tensors[graph.inputs[0]], "shape", [1, 3072]), "model.tflite"),
        (lambda graph: setattr(graph.tensors[graph.inputs[0]], "shape", [1, 60000, 60000, 3]), "model.tflite"),
    ],
    ids=["crash", "no output", "no image", "two inputs", "no classes", "flat", "huge"],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_litert_file_with_something_else_inside(images, loose, cli, change, words, verb):
    path = flatbuffer(loose, change)
    one_line(cli(verb, path, *([images] if verb == "predict" else ["--data", "digits"])), words)


def tiny_onnx(path, inputs, result="float", shape=(None, 10)):
    """Means of the first input, tiled to ten classes; the others are added."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    kinds = {"uint8": TensorProto.UINT8, "float": TensorProto.FLOAT, "int8": TensorProto.INT8, "half": 10}
    values = [helper.make_tensor_value_info(name, kinds[kind], dims) for name, kind, dims in inputs]
    nodes, means = [], []
    for name, _, dims in inputs:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        axes = list(range(1, len(dims)))
        nodes.append(helper.make_node("ReduceMean", [f"{name}_float"], [f"{name}_mean"], axes=axes, keepdims=0))
        means.append(f"{name}_mean")
    nodes.append(helper.make_node("Sum", means, ["sum"]))
    nodes.append(helper.make_node("Unsqueeze", ["sum", "axis"], ["column"]))
    nodes.append(helper.make_node("Mul", ["column", "row"], ["wide"]))
    nodes.append(helper.make_node("Cast", ["wide"], ["classes"], to=kinds[result]))
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("row", TensorProto.FLOAT, [1, 10], [1.0] * 10),
    ]
    outputs = [helper.make_tensor_value_info("classes", kinds[result], shape)]
    graph = helper.make_graph(nodes, "tiny", values, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


IMAGE = ("image", "uint8", ["n", 32, 32, 3])


@pytest.mark.skipif("onnx" not in HERE, reason="ONNX Runtime is not installed")
@pytest.mark.parametrize(
    ("inputs", "result", "words"),
    [
        ([IMAGE, ("more", "float", ["n", 4])], "float", "has 2 inputs, where one is expected"),
        ([("image", "int8", ["n", 32, 32, 3])], "float", "takes tensor(int8) values, where pixels are uint8"),
        ([("image", "half", ["n", 32, 32, 3])], "float", "takes tensor(float16) values"),
        ([("image", "float", ["n", 3072])], "float", "not images of one size"),
        ([("image", "float", ["n", "height", "width", 3])], "float", "not images of one size"),
        ([("image", "float", ["n", 3, 32, 32])], "float", "not square ones with 3 channels"),
        ([IMAGE], "half", "gives float16 values"),
    ],
    ids=["two inputs", "int8", "float16", "flat", "any size", "channels first", "float16 classes"],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_onnx_file_with_something_else_inside(images, loose, cli, inputs, result, words, verb):
    path = tiny_onnx(loose / "other.onnx", inputs, result)
    one_line(cli(verb, path, *([images] if verb == "predict" else ["--data", "digits"])), words)


@pytest.mark.skipif("onnx" not in HERE, reason="ONNX Runtime is not installed")
def test_what_is_no_probability_is_not_measured_as_one(loose, cli):
    path = tiny_onnx(loose / "other.onnx", [IMAGE])
    assert load(path)(np.full((2, 32, 32, 3), 200, np.uint8)).max() == 200
    one_line(cli("evaluate", path, "--data", "digits"), "what it gives are no probabilities")


def test_a_runtime_that_hangs_is_ended(loose, cli, images, monkeypatch):
    monkeypatch.setattr(worker, "PATIENCE", 0.05)  # not even a process begins so soon
    said = "model.tflite: its runtime gave no answer for 0.05 seconds"
    one_line(cli("predict", loose / "model.tflite", images), said)


def test_nothing_is_imported_from_the_working_directory(loose, images, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with worker.Worker(loose / "model.tflite") as running:
        assert len(running.times(1, 0)) == 1


def test_no_object_at_all_is_an_answer_of_a_detector(tmp_path):
    check_boxes(tmp_path / "model.tflite", np.zeros((1, 0, 6), np.float32), 3)
