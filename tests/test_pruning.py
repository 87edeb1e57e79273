"""Removing channels: what is left is an ordinary network, and computes what it should."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

from exported import card_of, copy, one_line, quick_compression, samples, shortened
from mobilenets import compress_latency, compress_stages
from mobilenets.architectures import channel_groups, cost, network, write_out
from mobilenets.compress import Options, compress
from mobilenets.compress_latency import FileClock, share_for
from mobilenets.compression.importance import importance
from mobilenets.compression.pruning import Pruner, choose, floors, remove_channels
from mobilenets.deployment.targets import Writer
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.statistics import recalibrate
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings
from test_deployment_files import build, operators, pixels

FAMILY = ["v1", "v2", "v3_small", "v4_conv_small", "v4_hybrid_medium"]
LONG = {"v4_hybrid_medium": pytest.mark.long}
SIZE, ALPHA = 32, 0.5


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_compression(monkeypatch)


def on_every_backend(names: list[str]) -> list:
    marks = {"v1": pytest.mark.backend} | LONG
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


def written(name: str) -> list:
    return write_out(network(name), (SIZE, SIZE, 3), 10, ALPHA)


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(logits_model(model)(images.astype(np.float32))))


def silence(model: keras.Model, layers: list, kept: dict[int, np.ndarray]) -> None:
    """Makes channels carry nothing, wherever they pass, but for those of each group that are kept."""
    channels = channel_groups(layers)
    by_name = {layer.name: layer for layer in model.layers}
    for layer in layers:
        index = channels.writes[layer.name]
        holder = by_name.get(f"{layer.name}_bn") or by_name[layer.name]
        if index not in kept or not holder.weights:
            continue
        gone = np.setdiff1d(np.arange(channels.groups[index].size), kept[index])
        for variable in holder.trainable_variables:
            value = np.array(keras.ops.convert_to_numpy(variable))
            value[..., gone] = 0.0
            variable.assign(value)


def random_scores(channels, seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {index: rng.random(group.size) for index, group in enumerate(channels.groups) if group.movable}


# -- which channels belong together ---------------------------------------------------------------------------------


def test_what_an_addition_ties_is_one_group():
    layers = write_out(network("v2"))
    channels = channel_groups(layers)
    tied = channels.groups[channels.writes["block3_project"]]
    assert tied.makers == ("block2_project", "block3_project")  # rows of 24 channels
    assert channels.writes["block3_add"] == channels.writes["block2_project"] == channels.reads["block4_expand"]
    inner = channels.groups[channels.writes["block4_expand"]]
    assert (inner.makers, inner.size) == (("block4_expand",), 144)
    assert channels.writes["block4_depthwise"] == channels.writes["block4_expand"]
    assert not channels.groups[channels.writes["logits"]].movable
    assert not channels.groups[0].movable  # the image


def test_squeeze_and_excite_weighs_a_group_and_has_one_of_its_own():
    channels = channel_groups(write_out(network("v3_small")))
    inside = channels.groups[channels.writes["block1_depthwise"]]
    assert inside.gates == ("block1_excite",)
    assert channels.groups[channels.writes["block1_reduce"]].makers == ("block1_reduce",)


def test_attention_keeps_what_it_splits_into_heads():
    layers = write_out(network("v4_hybrid_medium"))
    channels = channel_groups(layers)
    attention = next(layer for layer in layers if layer.kind == "attention")
    for name in (*attention.inputs, attention.name):
        assert not channels.groups[channels.writes[name]].movable


# -- the smaller network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", on_every_backend(FAMILY))
def test_removing_nothing_changes_nothing(name):
    model, images = build(name, SIZE, ALPHA), pixels(SIZE)
    same, table = remove_channels(model, network(name), ALPHA, {})
    assert table.channels == ()
    np.testing.assert_allclose(outputs(same, images), outputs(model, images), atol=1e-5)


@pytest.mark.parametrize("name", on_every_backend(FAMILY))
def test_removing_channels_that_carry_nothing_changes_nothing(name):
    """Every third channel is silenced wherever it passes; without them the same must come out."""
    model, images = build(name, SIZE, ALPHA), pixels(SIZE)
    layers = written(name)
    channels = channel_groups(layers)
    kept = {}
    for index, group in enumerate(channels.groups):
        if group.movable:
            kept[index] = np.flatnonzero(np.arange(group.size) % 3)
    silence(model, layers, kept)
    smaller, _ = remove_channels(model, network(name), ALPHA, kept)
    assert smaller.count_params() < 0.6 * model.count_params()
    expected = outputs(model, images)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it still tells images apart
    np.testing.assert_allclose(outputs(smaller, images), expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG.get(name, ())) for name in FAMILY])
def test_the_smaller_network_is_as_large_as_asked_and_its_table_says(name):
    share = 0.25
    layers = written(name)
    channels = channel_groups(layers)
    whole = cost(layers).macs
    kept = choose(layers, channels, random_scores(channels), share * whole, floors(channels))
    model = build(name, SIZE, ALPHA)
    smaller, table = remove_channels(model, network(name), ALPHA, kept)
    left = write_out(table, (SIZE, SIZE, 3), 10, ALPHA)
    assert 0.85 * share * whole < cost(left).macs <= share * whole
    trainable = sum(int(np.prod(variable.shape)) for variable in smaller.trainable_variables)
    assert trainable == cost(left).params
    assert all(count % 8 == 0 for _, count in table.channels)
    for layer in left:
        if layer.kind in ("conv", "depthwise", "dense"):
            assert smaller.get_layer(layer.name).output.shape[-1] == layer.output_shape[2]
    rebuilt = classifier(table, (SIZE, SIZE, 3), 10, ALPHA)
    assert [tuple(v.shape) for v in rebuilt.weights] == [tuple(v.shape) for v in smaller.weights]


def test_the_least_important_channels_go():
    layers = written("v1")
    channels = channel_groups(layers)
    scores = random_scores(channels)
    kept = choose(layers, channels, scores, 0.5 * cost(layers).macs, floors(channels))
    for index, stay in kept.items():
        gone = np.setdiff1d(np.arange(len(scores[index])), stay)
        assert scores[index][gone].max() < scores[index][stay].min()
    precious = next(iter(kept))
    again = choose(
        layers, channels, scores | {precious: scores[precious] + 100}, 0.5 * cost(layers).macs, floors(channels)
    )
    assert precious not in again


def test_pruning_a_pruned_network_goes_on_from_there():
    model, images, table = build("v2", SIZE, ALPHA), pixels(SIZE), network("v2")
    whole = cost(written("v2")).macs
    for share in (0.7, 0.4):
        layers = write_out(table, (SIZE, SIZE, 3), 10, ALPHA)
        channels = channel_groups(layers)
        model, table = remove_channels(
            model,
            table,
            ALPHA,
            choose(layers, channels, random_scores(channels), share * whole, floors(channel_groups(written("v2")))),
        )
    assert cost(write_out(table, (SIZE, SIZE, 3), 10, ALPHA)).macs <= 0.4 * whole
    assert outputs(model, images).shape == (5, 10)


@pytest.mark.parametrize(
    ("channels", "told"),
    [
        ({"block99": 8}, "no convolution or hidden layer"),
        ({"block1_pointwise": 0}, "1 to 32 channels, not 0"),
        ({"block1_pointwise": 33}, "1 to 32 channels, not 33"),
        ({"block1_depthwise": 8}, "no convolution or hidden layer"),
    ],
)
def test_channels_that_cannot_be_are_told(channels, told):
    with pytest.raises(UserError, match=told):
        write_out(replace(network("v1"), channels=tuple(channels.items())), width_multiplier=ALPHA)


def test_an_addition_of_unequal_sides_is_told():
    with pytest.raises(UserError, match="meet in 'block3_add'"):
        write_out(replace(network("v2"), channels=(("block2_project", 8),)))


class Counted:
    """Importance by chance, and what is asked of it."""

    def __init__(self):
        self.asked, self.settled = [], []

    def importance(self, model, channels):
        self.asked.append(model.count_params())
        return random_scores(channels)

    def settle(self, model):
        self.settled.append(model.count_params())


@pytest.mark.long
def test_little_goes_at_a_time_and_what_is_left_is_asked_again():
    model, whole, counted = build("v2", SIZE, ALPHA), cost(written("v2")).macs, Counted()
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    pruner = Pruner(model, network("v2"), ALPHA, counted.importance, counted.settle)
    assert pruner.macs == whole
    small, table = pruner.at(0.5 * whole)
    steps = len(counted.asked)
    assert 5 <= steps <= 6  # 0.85 ** 4 of it is 52 %
    assert counted.asked == sorted(counted.asked, reverse=True)
    assert counted.settled == [*counted.asked[1:], small.count_params()]
    assert cost(write_out(table, (SIZE, SIZE, 3), 10, ALPHA)).macs <= 0.5 * whole
    for share in (0.9, 0.6, 0.5):  # nothing anew on the way there
        _, again = pruner.at(share * whole, settled=False)
        assert 0.9 * share * whole < cost(write_out(again, (SIZE, SIZE, 3), 10, ALPHA)).macs <= share * whole
    assert (len(counted.asked), len(counted.settled)) == (steps, steps)
    assert again == table
    least = cost(write_out(pruner.at(0, settled=False)[1], (SIZE, SIZE, 3), 10, ALPHA)).macs
    assert least < 0.1 * whole
    assert cost(write_out(pruner.at(1)[1], (SIZE, SIZE, 3), 10, ALPHA)).macs == least  # it ends, where nothing can go
    assert pruner.at(1.01 * whole, settled=False)[1] == network("v2")  # smaller than asked already: nothing goes
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


@pytest.mark.backend
def test_statistics_of_batch_normalization_are_those_of_the_batches():
    model = build("v1", SIZE, ALPHA)
    trained = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables]
    batches = [pixels(SIZE, 8)[4 * part : 4 * part + 4] for part in range(2)]
    recalibrate(model, batches)
    stem = keras.Model(model.input, model.get_layer("stem").output)
    norm = model.get_layer("stem_bn")
    found = [keras.ops.convert_to_numpy(stem(batch.astype(np.float32))).astype(np.float64) for batch in batches]
    for variable, statistic in (norm.moving_mean, np.mean), (norm.moving_variance, np.var):
        expected = np.mean([statistic(one, axis=(0, 1, 2)) for one in found], axis=0)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, rtol=1e-4, atol=1e-5)
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert norm.momentum == 0.9


# -- importance -----------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_taylor_is_the_squared_change_of_the_loss():
    """Against the loss itself, with each channel's gate moved a little both ways."""
    layers = written("v1")
    channels = channel_groups(layers)
    model, images = build("v1", SIZE, ALPHA), pixels(SIZE, 16)
    labels = np.eye(10, dtype=np.float32)[np.arange(16) % 10]
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    scores = importance(model, channels, "taylor", [(images, labels)])
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    networks, name = logits_model(model), "block10_pointwise"
    norm = model.get_layer(f"{name}_bn")

    def loss(channel: int, factor: float) -> float:
        for variable in (norm.gamma, norm.beta):
            value = np.array(keras.ops.convert_to_numpy(variable))
            value[channel] *= factor
            variable.assign(value)
        found = networks(images.astype(np.float32), training=False)
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        losses = keras.losses.categorical_crossentropy(labels, found, from_logits=True)
        return float(keras.ops.convert_to_numpy(keras.ops.mean(losses)))

    found = scores[channels.writes[name]]
    step = 0.01
    picked = np.argsort(found)[-9:]
    expected = [((loss(c, 1 + step) - loss(c, 1 - step)) / (2 * step)) ** 2 for c in picked]
    # ReLU6 bends between the two points for some of them.
    assert 0.9 < np.median(found[picked] / expected) < 1.1
    assert np.argmax(expected) == 8


@pytest.mark.parametrize("criterion", ["bn", "l2"])
def test_criteria_of_weights_alone(criterion):
    channels = channel_groups(written("v2"))
    model = build("v2", SIZE, ALPHA)
    scores = importance(model, channels, criterion)
    assert set(scores) == {index for index, group in enumerate(channels.groups) if group.movable}
    index = channels.writes["block4_expand"]
    if criterion == "bn":
        expected = np.abs(keras.ops.convert_to_numpy(model.get_layer("block4_expand_bn").gamma))
    else:
        kernel = keras.ops.convert_to_numpy(model.get_layer("block4_expand").kernel)
        expected = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        expected = expected / np.sqrt((expected**2).mean())
    np.testing.assert_allclose(scores[index], expected, rtol=1e-5)
    tied = channels.writes["block3_project"]  # two that are added up
    assert scores[tied].shape == (channels.groups[tied].size,)


# -- until it is fast enough ----------------------------------------------------------------------------------------


def test_the_share_for_a_latency_is_found_by_measuring():
    said = []
    share = share_for(5.0, lambda share: 1 + 10 * share, said.append)
    assert 0.38 <= share <= 0.4
    assert len(said) <= 9
    assert share_for(20.0, lambda share: 1 + 10 * share, said.append) == 1.0
    with pytest.raises(UserError, match="takes 1 ms here"):
        share_for(0.5, lambda share: 1 + 10 * share, said.append)


@pytest.mark.long
def test_the_file_that_is_timed_is_the_one_that_would_ship(monkeypatch):
    written: list = []
    write = Writer.write

    def look(self, variant, directory):
        path = write(self, variant, directory)
        written.append([types for kind, types in operators(path) if kind in ("CONV_2D", "FULLY_CONNECTED")])
        return path

    monkeypatch.setattr(Writer, "write", look)
    model, images = build("v1", SIZE, ALPHA), list(pixels(SIZE))
    with FileClock(model, images, "litert", "int8", 1, ("logits",), 4) as clock:
        assert clock(model) > 0
    for types in written:  # the whole network's, and the candidate's
        assert [kind[1] for kind in types] == ["INT8", *["INT4"] * 13, "FLOAT32"]
    with FileClock(model, images, "litert", "float32", 1) as clock:
        assert clock.whole_ms > 0
    assert {types[1] for types in written[2]} == {"FLOAT32"}


def test_a_candidate_is_timed_against_the_whole_network(monkeypatch):
    """On a machine that is half as fast from one minute to the next, a file still takes what it took."""
    slowness = iter([1.0, 2.0, 0.5, 3.0, 1.0])
    monkeypatch.setattr(compress_latency, "measure_latency", lambda worker: {"median": 4.0 * next(slowness)})

    def turns(workers, batches):
        slower = next(slowness)
        return [[[part * slower * noise] for noise in (0.9, 1.0, 1.3)] for part in (4.0, 3.0)]

    monkeypatch.setattr(compress_latency, "interleaved", turns)
    model, images = build("v1", SIZE, ALPHA), list(pixels(SIZE))
    with FileClock(model, images, "litert", "float32", 1) as clock:
        assert clock.whole_ms == 4.0
        assert [round(clock(model), 6) for _ in range(3)] == [3.0, 3.0, 3.0]
    with FileClock(model, images, "litert", "float32", 1, whole_ms=8.0) as clock:
        assert round(clock(model), 6) == 6.0


# -- the verb -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_pruned_model_is_an_ordinary_one(place, cli, tmp_path, monkeypatch):
    model, out = shortened(place, tmp_path, monkeypatch), tmp_path / "small"
    status, text, err = cli("compress", model, "--out", out, "--prune", 0.5, "--prune-steps", 1, "--prune-epochs", 10,
                            "--int8", "none", "--teacher", model, "--max-drop", 100, "--json")  # fmt: skip
    assert status == 0, err
    card = json.loads(text)
    assert card == card_of(out)
    assert not (out / "stages").exists()
    before = card_of(model)
    assert card["cost"]["macs"] <= 0.5 * before["cost"]["macs"]
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], stage["macs"], stage["epochs"]) == ("prune", card["cost"]["macs"], 10)
    rows = card["compression"]["files"]
    assert [(row["when"], row["precision"], row["macs"]) for row in rows] == [
        ("before", "float32", before["cost"]["macs"]),
        ("after", "float32", card["cost"]["macs"]),
    ]
    assert rows[1]["bytes"] < 0.8 * rows[0]["bytes"]
    assert card["metrics"]["accuracy"] > 0.5
    status, text, err = cli("evaluate", out, "--json")
    assert (status, json.loads(text)["accuracy"]) == (0, card["metrics"]["accuracy"]), err
    status, text, err = cli("export", out, "--precision", "int8", "--max-drop", 100, "--json")
    assert status == 0, err
    pictures = samples(tmp_path / "pictures", 3)
    status, text, err = cli("predict", out, pictures, "--runtime", "litert", "--json")
    assert (status, len(json.loads(text)["images"])) == (0, 3), err
    status, text, err = cli("benchmark", out, "--runtime", "litert", "--rounds", 1, "--seconds", 0.02, "--json")
    assert (status, {row["macs"] for row in json.loads(text)["rows"]}) == (0, {card["cost"]["macs"]}), err
    status, text, err = cli("train", "digits", "--weights", out, "--alpha", 0.25, "--size", 32, "--epochs", 1,
                            "--out", tmp_path / "further", "--json")  # fmt: skip
    assert status == 0, err
    further = json.loads(text)
    assert (further["channels"], further["cost"]) == (card["channels"], card["cost"])
    for channels, told in ({"stem": "eight"}, "channels"), ({"block99": 8}, "channels: 'block99' is no convolution"):
        (out / "card.json").write_text(json.dumps(card_of(out) | {"channels": channels}))
        one_line(cli("train", "digits", "--weights", out, "--alpha", 0.25, "--size", 32, "--out", tmp_path / "x"),
                 f"damaged, {told}")  # fmt: skip


class Stopped(Exception):
    """Instead of the power cut that a test cannot make."""


@pytest.mark.long
def test_an_interrupted_run_goes_on_between_its_stages(place, tmp_path, monkeypatch):
    model = shortened(place, tmp_path, monkeypatch)
    options = Options(prune=0.6, steps=1, prune_epochs=1, max_drop=100)
    settings = Settings(epochs=1, batch_size=64, warmup_epochs=0.1)
    whole = compress(model, tmp_path / "whole", options, settings, quiet=True)
    assert [entry["stage"] for entry in whole["compression"]["stages"]] == ["prune", "qat"]
    out, begin = tmp_path / "cut", Reporter.begin
    begun = []

    def stop(self, epoch):
        begun.append(epoch)
        if len(begun) == 2:  # in the second stage
            raise Stopped
        begin(self, epoch)

    monkeypatch.setattr(Reporter, "begin", stop)
    with pytest.raises(Stopped):
        compress(model, out, options, settings, quiet=True)
    assert not (out / "card.json").exists()
    monkeypatch.setattr(Reporter, "begin", begin)
    with pytest.raises(UserError, match="this run was begun with options: prune"):
        compress(model, out, Options(prune=0.5, steps=1, prune_epochs=1), settings, quiet=True, resume=True)
    card = compress(model, out, options, settings, quiet=True, resume=True)
    for key in ("channels", "cost", "quantization"):
        assert card[key] == whole[key]
    assert [entry["macs"] for entry in card["compression"]["stages"]] == [
        entry["macs"] for entry in whole["compression"]["stages"]
    ]
    trials = [entry["compression"]["stages"][-1]["trials"] for entry in (card, whole)]
    assert trials[0] == trials[1]  # what training for int8 began with
    assert card["metrics"] == whole["metrics"]
    with (out / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]  # of both stages
    assert not (out / "stages").exists()


@pytest.mark.long
def test_target_ms_prunes_until_the_file_is_fast_enough(place, tmp_path, monkeypatch):
    model = shortened(place, tmp_path, monkeypatch)
    macs = card_of(model)["cost"]["macs"]

    def latency(network) -> float:
        shapes = [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]
        return float(sum(np.prod(shape) for shape in shapes)) / 1e5

    class Clock:
        def __init__(self, network, images, target, precision, threads, floats, weight_bits, whole_ms):
            assert (target, precision) == ("litert", "float32")
            self.whole_ms = latency(network)
            assert whole_ms in (None, self.whole_ms)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __call__(self, network):
            return latency(network)

    monkeypatch.setattr(compress_stages, "FileClock", Clock)
    whole = latency(keras.saving.load_model(model / "model.keras", compile=False))
    options = Options(target_ms=0.8 * whole, steps=2, prune_epochs=2, int8="none", max_drop=100)
    card = compress(model, tmp_path / "fast", options, Settings(warmup_epochs=0.1), quiet=True)
    made = keras.saving.load_model(tmp_path / "fast" / "model.keras", compile=False)
    assert 0.6 * whole < latency(made) <= 0.8 * whole
    assert card["cost"]["macs"] < macs
    assert [stage["whole_ms"] for stage in card["compression"]["stages"]] == [whole, whole]
    for asked, told in ((whole * 2, "nothing to prune"), (whole / 1000, "the smallest network")):
        again = Options(target_ms=asked, steps=1, prune_epochs=1, int8="none")
        with pytest.raises(UserError, match=told):
            compress(model, tmp_path / "none", again, quiet=True)


def test_mistakes_are_told_before_anything_is_written(place, cli, tmp_path):
    model, out = copy(place, tmp_path), tmp_path / "small"
    for words, told in [
        (("--prune", 1.5), "--prune is the share"),
        (("--prune", 0.5, "--target-ms", 3), "give one of them"),
        (("--target-ms", 0), "--target-ms must be greater"),
        (("--int8", "none"), "leaves nothing to do"),
        (("--prune", 0.5, "--criterion", "magic"), "--criterion"),
        (("--criterion", "l2"), "--criterion is about removing channels"),
        (("--prune-epochs", 5), "--prune-epochs is about removing channels"),
        (("--int8", "ptq", "--teacher", model), "trains nothing that could learn from it"),
        (("--prune", 0.5, "--prune-steps", 10), "--prune-steps"),
        (("--prune", 0.5, "--runtime", "litert"), "--runtime is where"),
        (("--target-ms", 3, "--runtime", "openvino"), "no file of --to litert runs in it"),
        (("--prune", 0.5, "--int8", "none", "--keep-float", "logits"), "--keep-float"),
        (("--prune", 0.5, "--int8", "none", "--weight-bits", 4), "--weight-bits"),
        (("--hint", 1, "--teacher", model), "--hint is for the training after --prune"),
    ]:
        one_line(cli("compress", model, "--out", out, *words), told)
        assert not out.exists(), words
