"""Training the head of a frozen network on features that are computed once."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilenets.data import ImageData, Split
from mobilenets.data.loader import EvaluationBatches
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.training import checkpoint, logs
from mobilenets.training.fit import class_weights, score
from mobilenets.training.loop import Result, build, not_a_number
from mobilenets.training.optimizer import make_optimizer, peak_rate
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

BATCH = 64  # images a call of the network


def fit_head(
    model: keras.Model,
    data: ImageData,
    settings: Settings,
    directory: Path,
    state: checkpoint.State,
    reporter: Callable[[int, int], Reporter] = Reporter,
) -> Result:
    """Trains the last dense layer of ``model`` in place; everything before it stays as it is.

    What the head reads is computed once for each image, and once more mirrored where ``settings.flip`` asks for it,
    instead of anew in every epoch; so other augmentation has no place, and nothing is saved before the end: to begin
    again costs less than a checkpoint is worth. Arguments and result are those of `mobilenets.training.fit.fit`.
    """
    began = time.perf_counter()
    logits = model.get_layer("logits")
    run = predictor(keras.Model(model.input, logits.input))
    size = model.input_shape[1]
    flip = data.flip if settings.flip is None else settings.flip
    features, labels = _features(run, data.train, size, flip)
    held, truth = _features(run, data.val, size, False)
    targets = np.eye(len(data.classes), dtype=np.float32)[labels]
    targets = targets * (1 - settings.label_smoothing) + settings.label_smoothing / len(data.classes)
    weights = class_weights(data, settings)
    weights = None if weights is None else weights[labels]

    head = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(len(data.classes), name="logits")])
    head.layers[-1].set_weights(logits.get_weights())
    batch = min(settings.batch_size, len(features))
    steps = len(features) // batch
    optimizer = make_optimizer(settings, head.trainable_variables, steps, peak_rate(settings, from_weights=True))
    head.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    build(head, (len(data.classes),), (len(data.classes),))
    good, stopped = logits.get_weights(), None
    with reporter(settings.epochs, steps) as report:
        for epoch in range(settings.epochs):
            report.begin(epoch + 1)
            order = np.random.default_rng([settings.seed, epoch]).permutation(len(features))
            sums = np.zeros(2)
            for step in range(steps):
                chosen = order[step * batch : (step + 1) * batch]
                weight = None if weights is None else weights[chosen]
                found = head.train_on_batch(features[chosen], targets[chosen], weight, return_dict=True)
                sums += float(found["loss"]), float(found["accuracy"])
                if not math.isfinite(sums[0]):
                    break
                report.step(sums[0] / (step + 1))
            if not math.isfinite(sums[0]):
                stopped = not_a_number(epoch + 1)
                break
            outputs = keras.ops.convert_to_numpy(keras.ops.softmax(head.predict_on_batch(held)))
            row = dict(zip(("loss", "accuracy"), (sums / steps).tolist(), strict=True)) | score(outputs, truth)
            row["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            row["seconds"] = time.perf_counter() - began
            began = time.perf_counter()
            state.epoch += 1
            state.seconds += row["seconds"]
            state.history.append({"epoch": state.epoch} | row)
            good = head.layers[-1].get_weights()
            report.end(state)
    logits.set_weights(good)
    logs.write_history(directory / "history.csv", state.history)
    return Result(state, stopped, failed=stopped is not None)


def _features(run: Callable, split: Split, size: int, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """What the head reads of each image (images, features), mirrored images behind the others, and the labels."""
    batches = EvaluationBatches(split, size, BATCH)
    found, labels = probabilities(run, batches)
    if not flip:
        return found, labels
    mirrored, _ = probabilities(lambda images: run(images[:, :, ::-1]), batches)
    return np.concatenate([found, mirrored]), np.concatenate([labels, labels])
