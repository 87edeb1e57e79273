"""``mobilenets compress``: a model directory in, a smaller one out; what that cost and gained is measured on files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mobilenets import __version__
from mobilenets import card as cards
from mobilenets.architectures import cost, network
from mobilenets.compress_stages import Pruning, Stages, Work
from mobilenets.compress_table import before_and_after
from mobilenets.compression.importance import CRITERIA
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import KEY
from mobilenets.compression.repair import labelled, repair
from mobilenets.compression.scheme import INTEGER, WEIGHT_BITS, integer_form
from mobilenets.data.names import some
from mobilenets.deployment.artifacts import check_entries
from mobilenets.deployment.calibrate import calibration_images, observe
from mobilenets.deployment.export import export
from mobilenets.deployment.judges import judge_of
from mobilenets.deployment.targets import TARGETS, require_int4, variants
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.evaluation.inference import predictor
from mobilenets.evaluation.known import require_model
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model, save_model
from mobilenets.training import checkpoint
from mobilenets.training.classify import make_room, prepare
from mobilenets.training.distill import load_teacher, require_teacher
from mobilenets.training.kinds import Classifiers, Kind, kind_of
from mobilenets.training.settings import USUAL_IMAGES, Settings

INT8 = ("qat", "ptq", "none")
# Of the learning rate from random weights. Statistics of batch normalization stand still here, and at ten times as much
# ported V2 weights, whose channels are very unequal, came apart.
QAT_RATE = 0.002
# Likewise, after channels were removed. A third, a tenth, a thirtieth gave V1 (alpha 0.5, a quarter of its
# multiply-accumulates, one epoch of Fashion-MNIST) 92.0, 91.6 and 91.3 %; ported V2 (a half, three epochs of `stamps`,
# 66.4 % before) 67.0, 66.6 and 69.7 %.
RECOVERY_RATE = 1 / 3
# Settings of the first training that go on to hold: what the model should be good at, and what kept it from blowing up.
KEPT = ("dice", "class_weights", "clip_norm")


@dataclass(frozen=True)
class Options:
    """What to do to a model.

    Attributes:
        prune: share of the multiply-accumulates that may be left, between 0 and 1, or None.
        target_ms: milliseconds that the file may take for an image, measured here, or None; prunes until it does.
        runtime: in which that is measured; None takes the first target's.
        criterion: which channels go, of `mobilenets.compression.importance.CRITERIA`.
        steps: how often channels are removed, with training after each time.
        prune_epochs: epochs of that training, in all.
        int8: ``qat``, quantization-aware training; ``ptq``, the best of several ways to calibrate, without training;
            or ``none``, files in float32.
        floats: operations to leave in float32.
        weight_bits: 8, or 4 for weights of 1x1 convolutions and the head, which are nearly all.
        teacher: a model directory to learn from, or None; for classifiers.
        targets: kinds of files to write.
        max_drop: points of accuracy, of a detector's AP or of a segmenter's mIoU, that a file may lose.
        threads: for the latency; None takes every core.
    """

    prune: float | None = None
    target_ms: float | None = None
    runtime: str | None = None
    criterion: str = CRITERIA[0]
    steps: int = 3
    prune_epochs: int = 9
    int8: str = "qat"
    floats: Sequence[str] = ()
    weight_bits: int = 8
    teacher: str | None = None
    targets: Sequence[str] = ("litert",)
    max_drop: float = 1.0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.int8 not in INT8:
            raise UserError(f"--int8 must be one of {', '.join(INT8)}, not {self.int8!r}")
        if self.prune is not None and not 0 < self.prune < 1:
            raise UserError(f"--prune is the share of the MACs that stays, between 0 and 1, not {self.prune:g}")
        if self.target_ms is not None and not 0 < self.target_ms < float("inf"):
            raise UserError(f"--target-ms must be greater than 0, not {self.target_ms:g}")
        if self.prune is not None and self.target_ms is not None:
            raise UserError("--prune and --target-ms both say how much to remove; give one of them")
        if not self.prunes and self.int8 == "none":
            raise UserError("--int8 none without --prune or --target-ms leaves nothing to do")
        for option, name in (
            ("--criterion", "criterion"),
            ("--prune-steps", "steps"),
            ("--prune-epochs", "prune_epochs"),
        ):
            if not self.prunes and getattr(self, name) != getattr(Options, name):
                raise UserError(f"{option} is about removing channels, so it needs --prune or --target-ms")
        if not self.prunes and self.int8 == "ptq" and self.teacher:
            raise UserError("--teacher: --int8 ptq trains nothing that could learn from it; leave it out")
        if self.criterion not in CRITERIA:
            raise UserError(f"--criterion must be one of {', '.join(CRITERIA)}, not {self.criterion!r}")
        if not 1 <= self.steps <= self.prune_epochs:
            raise UserError(f"--prune-steps must be from 1 to --prune-epochs, not {self.steps}")
        if self.int8 == "none" and (self.floats or self.weight_bits != 8):
            name = "--keep-float" if self.floats else "--weight-bits"
            raise UserError(f"{name} is about what int8 computes; with --int8 none all is in float32")
        if self.weight_bits not in WEIGHT_BITS:
            raise UserError(f"--weight-bits must be 8 or 4, not {self.weight_bits}")
        for target in self.targets:
            if target == "savedmodel":
                raise UserError("--to savedmodel: such a file computes in float32; choose of litert, onnx and openvino")
        if self.runtime is not None and self.target_ms is None:
            raise UserError("--runtime is where --target-ms is measured; give both")
        if self.runtime is not None and self.runtime not in [TARGETS[name].runtime for name in self.targets]:
            raise UserError(f"--runtime {self.runtime}: no file of --to {','.join(self.targets)} runs in it")
        if not 0 <= self.max_drop <= 100:
            raise UserError(f"--max-drop must be from 0 to 100 points, not {self.max_drop:g}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}")

    @property
    def prunes(self) -> bool:
        """Whether channels are removed."""
        return self.prune is not None or self.target_ms is not None

    @property
    def simulated_bits(self) -> int:
        """Of weights, in what is computed here and now: 8 are 7 in all files but LiteRT's."""
        return 7 if self.weight_bits == 8 and set(self.targets) != {"litert"} else self.weight_bits

    @property
    def precision(self) -> str:
        """Of the files."""
        return "float32" if self.int8 == "none" else "int8"

    def pruning(self) -> Pruning:
        """What the stages need to know."""
        runs = {TARGETS[name].runtime: name for name in reversed(self.targets)}
        target = runs[self.runtime] if self.runtime else self.targets[0]
        return Pruning(
            self.prune,
            self.target_ms,
            target,
            self.precision,
            self.threads,
            self.floats,
            self.weight_bits,
            self.criterion,
            self.steps,
        )


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

    Channels are removed first, then what is left is trained for integers: a network that is cut after it learned how
    integers round would have to learn it again.

    Args:
        directory: the model directory to start from; it stays as it is.
        out: the model directory to write.
        options: what to do.
        settings: how to train; None takes as many images a step as is usual for the task. ``epochs`` and
            ``learning_rate`` are those of the training for integers; after channels were removed,
            ``options.prune_epochs`` follow at the rate of training from weights.
        resume: go on with the run that ``out`` holds the checkpoint of.
        overwrite: replace the model that ``out`` holds.
        quiet: print no progress.
        command: as typed, for the card.

    Returns:
        The card; ``compression`` holds where it came from, its stages and, in ``files``, the files before and after.

    Raises:
        UserError: the model, its data or an option is unusable, ``out`` holds a model, or a file was refused.
    """
    directory, out, options = Path(directory), Path(out), options or Options()
    card = cards.read_card(directory)
    settings = settings or Settings(batch_size=USUAL_IMAGES[card["task"]])
    cards.require_apart(out, model=directory, teacher=options.teacher)
    require_teacher(settings, options.teacher)
    if settings.hint and not options.prunes:
        raise UserError("--hint is for the training after --prune; integers are simulated as far as the logits alone")
    variants(options.targets, [options.precision])  # what cannot be written fails now, not after the training
    if options.weight_bits == 4:
        require_int4(options.targets)
    check_entries(directory, card)
    settings = _as_before(settings, card)
    kind, model = _opened(directory, card, options.teacher)
    data, size, crop = kind.data, card["input_shape"][0], cards.crop(card)
    settings = replace(settings, batch_size=min(settings.batch_size, len(data.train)))
    warmup = min(settings.warmup_epochs, options.prune_epochs)
    recovery = replace(
        settings, epochs=options.prune_epochs, warmup_epochs=warmup, learning_rate=kind.rate(settings) * RECOVERY_RATE
    )
    settings = replace(settings, hint=0.0, learning_rate=settings.learning_rate or kind.rate(settings) * QAT_RATE)
    alpha = card["width_multiplier"]
    table = cards.as_trained(network(card["network"]), card, directory, alpha, kind.head)
    config = {
        "compress": str(directory),
        "options": {key: value for key, value in asdict(options).items() if key not in ("max_drop", "threads")}
        | {"floats": sorted(options.floats), "targets": list(options.targets)},
        "settings": settings.asdict() | {"hint": recovery.hint},
        "fingerprint": data.fingerprint,
    }
    layers = [op.name for op in integer_form(graph_of(model)).ops if op.kind in INTEGER]
    unknown = sorted(set(options.floats) - set(layers))
    if unknown:
        raise UserError(f"--keep-float {unknown[0]}: this model computes no such layer in integers, but {some(layers)}")
    images = calibration_images(card, data, size)
    cards.require_apart(out, data=data.source)
    state = prepare(out, config, resume, overwrite)
    if overwrite and not resume:
        make_room(out)
    stages = Stages(out, state, kind, quiet)
    work = Work(model, table, alpha, kind.head, [])
    quantization = None
    if options.prunes:
        stages.prune(work, options.pruning(), recovery, images)
    integer = {"floats": options.floats, "weight_bits": options.simulated_bits}
    judge = labelled(data, size, crop)
    if options.int8 == "qat":
        quantization, integers = stages.quantize(work, settings, images, judge, **integer)
    elif options.int8 == "ptq":
        quantization, trials = repair(work.model, images, judge, observe, say=stages.say, **integer)
        integers = simulated(work.model, quantization.ranges, **integer)
        work.log.append({"stage": "ptq", "epochs": 0, "seconds": 0.0, "trials": trials})
    if quantization:
        _, found = judge_of(data, size, crop).run(predictor(integers))
        quantization = replace(quantization, metrics={key: found[key] for key in (kind.score, "images")})
    stages.write_history()
    save_model(work.model, out / cards.MODEL)
    made = _described(card, directory, options, settings if options.int8 == "qat" else recovery, work, kind, command)
    if quantization:
        made[KEY] = quantization.asdict()
    made["metrics"] = kind.evaluate(work.model, out, size)
    publish(out, made)
    checkpoint.remove(out)
    stages.done()
    export(out, options.targets, [options.precision], max_drop=options.max_drop, threads=options.threads)
    files = before_and_after(directory, out, kind, images, options.targets, options.precision, options.threads)
    made = cards.read_card(out)
    made["compression"]["files"] = files
    publish(out, made)
    return made


def _as_before(settings: Settings, card: dict[str, Any]) -> Settings:
    """The settings with those `KEPT` that the model was trained by, where they do not say otherwise."""
    training, usual = card.get("training") or {}, Settings()
    same = [name for name in KEPT if name in training and getattr(settings, name) == getattr(usual, name)]
    return replace(settings, **{name: training[name] for name in same})


def _opened(directory: Path, card: dict[str, Any], teacher: str | None) -> tuple[Kind, keras.Model]:
    """Loads a model, with what it was trained on, and the one that it shall learn from."""
    kind = kind_of(card)
    if teacher and not isinstance(kind, Classifiers):
        raise UserError(f"--teacher is for classifiers; this model learns from {kind.learned} alone, so leave it out")
    if not kind.tells(kind.data.train) or not kind.tells(kind.data.val):
        raise UserError(
            f"{directory}: its card names no images with {kind.learned} to train and to measure on; compression needs "
            "some"
        )
    model = load_model(directory)
    require_model(model, card, directory)
    if isinstance(kind, Classifiers) and teacher:
        kind = replace(kind, teacher=load_teacher(teacher, kind.data.classes))
    return kind, model


def _described(
    card: dict[str, Any], directory: Path, options: Options, settings: Settings, work: Work, kind: Kind, command: str
) -> dict[str, Any]:
    """The new model's card, but for what is measured."""
    dropped = ("artifacts", "refused", "metrics", "speed", "channels", "elastic", KEY)
    kept = {key: value for key, value in card.items() if key not in dropped}
    channels = {"channels": dict(work.network.channels)} if work.network.channels else {}
    made = {
        "from": str(directory),
        "int8": options.int8,
        "floats": sorted(options.floats),
        "weight_bits": options.weight_bits,
        "stages": work.log,
    }
    if options.prunes:
        made |= {"macs_before": card["cost"]["macs"], "criterion": options.criterion, "target_ms": options.target_ms}
    training = {}
    if any(entry["epochs"] for entry in work.log):  # else it is still the training of the model at the start
        training["training"] = {
            **settings.asdict(),
            "epochs_run": sum(entry["epochs"] for entry in work.log),
            "weights": str(directory),
            "teacher": options.teacher,
            "seconds": round(sum(entry["seconds"] for entry in work.log), 1),
        }
        for name in kind.unused:
            del training["training"][name]
    return (
        kept
        | channels
        | training
        | {
            "tool": f"mobilenets {__version__}",
            "command": command,
            "created": cards.now(),
            "cost": asdict(cost(work.layers())),
            "environment": cards.environment(),
            "artifacts": [],
            "compression": made,
        }
    )
