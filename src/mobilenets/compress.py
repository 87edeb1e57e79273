"""``mobilenets compress``: a model directory in, a smaller one out; what that cost and gained is measured on files."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobilenets import __version__
from mobilenets import card as cards
from mobilenets.compression.qat import train_quantized
from mobilenets.compression.quantization import KEY
from mobilenets.compression.scheme import INTEGER, WEIGHT_BITS, integer_form
from mobilenets.data.loader import EvaluationBatches
from mobilenets.data.names import some
from mobilenets.deployment.artifacts import check_entries
from mobilenets.deployment.calibrate import calibrate, calibration_images
from mobilenets.deployment.export import export
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.targets import TARGETS, Variant, Writer, require_int4, variants
from mobilenets.deployment.verify import measured, truth_of
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation import measure
from mobilenets.evaluation.evaluate import evaluate_model, evaluation_data, publish, require_fit
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model, save_model
from mobilenets.training import checkpoint
from mobilenets.training.classify import prepare
from mobilenets.training.distill import load_teacher, require_teacher
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

INT8 = ("qat",)
# Of the learning rate from random weights. Statistics of batch normalization stand still here, and at ten times as much
# ported V2 weights, whose channels are very unequal, came apart.
QAT_RATE = 0.002


@dataclass(frozen=True)
class Options:
    """What to do to a model.

    Attributes:
        int8: ``qat``, quantization-aware training.
        floats: operations to leave in float32.
        weight_bits: 8, or 4 for weights of 1x1 convolutions and the head, which are nearly all.
        teacher: a model directory to learn from, or None.
        targets: kinds of files to write.
        max_drop: points of accuracy that a file may lose.
        threads: for the latency; None takes every core.
    """

    int8: str = "qat"
    floats: Sequence[str] = ()
    weight_bits: int = 8
    teacher: str | None = None
    targets: Sequence[str] = ("litert",)
    max_drop: float = 1.0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.int8 not in INT8:
            raise UserError(f"--int8 must be {' or '.join(INT8)}, not {self.int8!r}")
        if self.weight_bits not in WEIGHT_BITS:
            raise UserError(f"--weight-bits must be 8 or 4, not {self.weight_bits}")
        for target in self.targets:
            if target == "savedmodel":
                raise UserError("--to savedmodel: such a file computes in float32; choose of litert, onnx and openvino")
        if not 0 <= self.max_drop <= 100:
            raise UserError(f"--max-drop must be from 0 to 100 points, not {self.max_drop:g}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}")


def compress(
    directory: Path | str,
    out: Path | str,
    options: Options | None = None,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Makes a smaller model of one, and its files, and measures both sides of the bargain.

    Args:
        directory: the model directory to start from; it stays as it is.
        out: the model directory to write.
        options: what to do.
        settings: how to train.
        resume: go on with the run that ``out`` holds the checkpoint of.
        overwrite: replace the model that ``out`` holds.
        quiet: print no progress.
        command: as typed, for the card.

    Returns:
        The card; ``compression`` holds where it came from and, in ``files``, the files before and after.

    Raises:
        UserError: the model, its data or an option is unusable, ``out`` holds a model, or a file was refused.
    """
    directory, out, options = Path(directory), Path(out), options or Options()
    settings = settings or Settings()
    if out.resolve() == directory.resolve():
        raise UserError(f"--out {out}: is the model to start from; name another directory")
    require_teacher(settings, options.teacher)
    if settings.hint:
        raise UserError("--hint: integers are simulated as far as the logits alone; leave it out")
    variants(options.targets, ["int8"])  # what cannot be written fails now, not after the training
    if options.weight_bits == 4:
        require_int4(options.targets)
    card = cards.read_card(directory)
    check_entries(directory, card)
    data = evaluation_data(card)
    if not len(data.train):
        raise UserError(f"{directory}: its card names no images to train on; quantization-aware training needs some")
    settings = replace(settings, batch_size=min(settings.batch_size, len(data.train)))
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=rate_of(settings))
    size = card["input_shape"][0]
    model = load_model(directory)
    require_fit(model, card, directory)
    teacher = load_teacher(options.teacher, data.classes, size) if options.teacher else None
    config = {
        "compress": str(directory),
        "options": {"int8": options.int8, "floats": sorted(options.floats), "weight_bits": options.weight_bits},
        "teacher": options.teacher,
        "settings": settings.asdict(),
        "fingerprint": data.fingerprint,
    }
    graph = integer_form(graph_of(model))
    layers = [op.name for op in graph.ops if op.kind in INTEGER]
    unknown = sorted(set(options.floats) - set(layers))
    if unknown:
        raise UserError(f"--keep-float {unknown[0]}: this model computes no such layer in integers, but {some(layers)}")
    state = prepare(out, config, resume, overwrite)  # last, for it may remove what ``out`` holds
    ranges = calibrate(graph, calibration_images(card, data, size))
    result, quantization, network = train_quantized(
        model,
        data,
        settings,
        out,
        state,
        ranges,
        floats=options.floats,
        weight_bits=options.weight_bits,
        teacher=teacher,
        reporter=lambda epochs, steps: Reporter(epochs, steps, quiet),
    )
    if result.failed:
        raise UserError(f"training stopped: {result.stopped}; try a lower --lr (it was {settings.learning_rate:g})")
    batches = EvaluationBatches(data.val, size, 64, crop=cards.crop(card))
    simulated = measure(*probabilities(predictor(network), batches), data.classes)
    quantization = replace(quantization, metrics={key: simulated[key] for key in ("accuracy", "images")})
    save_model(model, out / cards.MODEL)
    made = _described(card, directory, options, settings, result.state, command) | {KEY: quantization.asdict()}
    made["metrics"] = evaluate_model(predictor(model), data, out, size, crop=cards.crop(card))
    publish(out, made)
    checkpoint.remove(out)
    export(out, options.targets, ["int8"], max_drop=options.max_drop, threads=options.threads)
    files = _before_and_after(directory, out, card, data, options)
    made = cards.read_card(out)
    made["compression"]["files"] = files
    publish(out, made)
    return made


def rate_of(settings: Settings) -> float:
    """The learning rate of training for integers where nobody names one: the weights are good already."""
    from mobilenets.training.optimizer import peak_rate

    return peak_rate(settings) * QAT_RATE


def _described(
    card: dict[str, Any], directory: Path, options: Options, settings: Settings, state: Any, command: str
) -> dict[str, Any]:
    """The new model's card, but for what is measured."""
    kept = {key: value for key, value in card.items() if key not in ("artifacts", "refused", "metrics", "speed", KEY)}
    return kept | {
        "tool": f"mobilenets {__version__}",
        "command": command,
        "created": cards.now(),
        "environment": cards.environment(),
        "artifacts": [],
        "training": {
            **settings.asdict(),
            "epochs_run": state.epoch,
            "weights": str(directory),
            "teacher": options.teacher,
            "seconds": round(state.seconds, 1),
        },
        "compression": {
            "from": str(directory),
            "int8": options.int8,
            "floats": sorted(options.floats),
            "weight_bits": options.weight_bits,
        },
    }


# -- before and after -----------------------------------------------------------------------------------------------


def _before_and_after(
    directory: Path, out: Path, card: dict[str, Any], data: Any, options: Options
) -> list[dict[str, Any]]:
    """The files that the model had or could have had, and those it has now; timed in turns."""
    made = cards.read_card(out)
    size = card["input_shape"][0]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        model = load_model(directory)
        writer = Writer(model, calibration_images(card, data, size))
        truth = truth_of(model, EvaluationBatches(data.val, size, 64, crop=cards.crop(card)))
        rows, workers = [], []
        for target in options.targets:
            for precision in ("float32", "int8"):
                variant = Variant(target, precision, batch=TARGETS[target].batch)
                path = writer.write(variant, Path(temporary))
                entry = measured(path, variant, truth, data.classes, options.threads)
                rows.append(_row("before", entry, card))
                workers.append(stack.enter_context(Worker(path, entry["runtime"], options.threads)))
            for entry in made["artifacts"]:
                if entry["target"] == target:
                    rows.append(_row("after", entry, made))
                    path = out / entry["file"]
                    workers.append(stack.enter_context(Worker(path, entry["runtime"], options.threads)))
        times = interleaved(workers, [1] * len(workers))
        for row, worker, rounds in zip(rows, workers, times, strict=True):
            row["latency_ms"] = summary(rounds) | {"threads": worker.about["threads"], "batch": 1}
    return rows


def _row(when: str, entry: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    return {
        "when": when,
        **{key: entry[key] for key in ("target", "runtime", "precision", "bytes")},
        "accuracy": entry["metrics"]["accuracy"],
        "images": entry["metrics"]["images"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
    }
