"""Images per second of a training step of MobileNet V1: ours, Keras' own model, and a plain PyTorch loop.

    python benchmarks/train_throughput.py                                    # five cases, about 15 minutes
    python benchmarks/train_throughput.py --alpha 0.5 --size 32 --batch 128 --rounds 3

Contenders, all float32, AdamW, random images held in memory, no augmentation, 10 classes:

- ``ours``: `mobilenets.mobilenet_v1` as `mobilenets.training` runs it (loss from logits, weight
  decay, ``train_on_batch``); takes uint8 images and scales them inside the step.
- ``off``: the same on TensorFlow without oneDNN's kernels, which TensorFlow has on by itself on newer processors only,
  and `mobilenets.models` everywhere.
- ``keras``: `keras.applications.MobileNet` and ``fit`` on the same backend, given images that are scaled already;
  on TensorFlow with ``jit_compile=False``, since XLA makes it slower there. Its stem gets stride 1 where ours has.
- ``torch``: the same table in PyTorch, channels_last, a plain loop, given tensors that are scaled already.

Each contender lives in a process of its own and only one works at a time. Rounds go forwards and backwards through
the contenders in turn; a ratio is taken within a round, so what slows the whole machine down cancels out as far as
it lasts a round. CPU seconds per step are kept beside the wall clock: they tell a busy machine from a slow step.
Use a quiet machine; the load average at the beginning and the end is in the result. On a busy one PyTorch's OpenMP
threads spin while they wait for each other and its loop becomes many times slower (in CPU seconds too),
which says nothing about PyTorch: OMP_WAIT_POLICY=passive in the environment avoids most of that.
"""

import argparse
import contextlib
import csv
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mobilenets.files import write_json, write_text

CONTENDERS = ("ours", "keras", "torch")
if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    CONTENDERS += ("off",)
CASES = ((0.25, 28, 16), (0.5, 32, 128), (1.0, 32, 128), (0.5, 128, 64), (1.0, 224, 16))  # alpha, pixels, batch
CLASSES = 10
RATE, DECAY = 1e-3, 0.05
RESULT = Path(__file__).parent / "results" / "train_throughput"
Step = Callable[[int], float]  # runs so many steps, returns the seconds they took


def arrays(size: int, batch: int):
    """Two batches: images uint8 (2 * batch, size, size, 3) and labels int64 (2 * batch,)."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (2 * batch, size, size, 3)
    return random.integers(0, 256, shape, np.uint8), random.integers(0, CLASSES, 2 * batch)


def make_ours(alpha: float, size: int, batch: int) -> tuple[Step, int]:
    """Our model and the step of `mobilenets.training.fit`; also the number of trainable parameters."""
    import numpy as np

    from mobilenets import mobilenet_v1
    from mobilenets.models import keras
    from mobilenets.models.builder import logits_model
    from mobilenets.training.optimizer import make_optimizer
    from mobilenets.training.settings import Settings

    model = logits_model(mobilenet_v1((size, size, 3), CLASSES, alpha))
    settings = Settings(batch_size=batch, optimizer="adamw", learning_rate=RATE, weight_decay=DECAY)
    model.compile(
        optimizer=make_optimizer(settings, model.trainable_variables, steps=1000),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    images, labels = arrays(size, batch)
    labels = np.eye(CLASSES, dtype=np.float32)[labels]

    def step(count: int) -> float:
        began = time.perf_counter()
        for number in range(count):
            part = slice(number % 2 * batch, (number % 2 + 1) * batch)
            float(model.train_on_batch(images[part], labels[part], return_dict=True)["loss"])
        return time.perf_counter() - began

    return step, _trainable(model)


def make_keras(alpha: float, size: int, batch: int) -> tuple[Step, int]:
    """`keras.applications.MobileNet`, `compile` and `fit`."""
    import keras
    import numpy as np

    side = max(size, 32)  # it refuses to be built for less
    model = keras.applications.MobileNet((side, side, 3), alpha, weights=None, classes=CLASSES)
    if size < 64:

        def at_stride_1(layer):
            config = layer.get_config() | ({"strides": (1, 1)} if layer.name == "conv1" else {})
            return layer.__class__.from_config(config)

        image = keras.Input((size, size, 3))
        model = keras.models.clone_model(model, input_tensors=image, clone_function=at_stride_1)
    model.compile(
        optimizer=keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    images, labels = arrays(size, batch)
    images = images.astype(np.float32) / 127.5 - 1

    class Clock(keras.callbacks.Callback):
        """Starts after the first step, so that what `fit` sets up is not counted."""

        began = None

        def on_train_batch_end(self, number, logs=None):
            if number == 0:
                self.began = time.perf_counter()

    def step(count: int) -> float:
        order = np.arange((count + 1) * batch) % (2 * batch)
        x, y = images[order], labels[order]
        clock = Clock()
        model.fit(x, y, batch_size=batch, epochs=1, shuffle=False, verbose=0, callbacks=[clock])
        return time.perf_counter() - clock.began

    return step, _trainable(model)


def make_torch(alpha: float, size: int, batch: int) -> tuple[Step, int]:
    """The same table of layers in PyTorch, channels_last, and a plain loop."""
    import torch
    from torch import nn

    from mobilenets.architectures import V1, write_out

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    modules = []
    for layer in write_out(V1, (size, size, 3), CLASSES, alpha):
        inside, outside = layer.input_shape[-1], layer.output_shape[-1]
        if layer.kind in ("conv", "depthwise"):
            groups = inside if layer.kind == "depthwise" else 1
            modules.append(
                nn.Conv2d(inside, outside, layer.kernel, layer.stride, layer.kernel // 2, groups=groups, bias=False)
            )
            # PyTorch's momentum is the share of the new value: 0.01 there is 0.99 in Keras.
            modules += [nn.BatchNorm2d(outside, eps=1e-3, momentum=0.01), nn.ReLU6(inplace=True)]
        elif layer.kind == "global_pool":
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        elif layer.kind == "dense":
            modules.append(nn.Linear(inside, outside))
    model = nn.Sequential(*modules).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    criterion = nn.CrossEntropyLoss()
    images, labels = arrays(size, batch)
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(labels)

    def step(count: int) -> float:
        began = time.perf_counter()
        for number in range(count):
            part = slice(number % 2 * batch, (number % 2 + 1) * batch)
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(images[part]), labels[part])
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - began

    return step, sum(parameter.numel() for parameter in model.parameters())


def _trainable(model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def work(contender: str, alpha: float, size: int, batch: int) -> None:
    """A contender's process: a number of steps comes in on a line, (wall, CPU) seconds per step go out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    make = {"ours": make_ours, "off": make_ours, "keras": make_keras, "torch": make_torch}[contender]
    step, parameters = make(alpha, size, batch)
    hello = {"parameters": parameters}
    if contender == "ours":
        from mobilenets.card import environment

        hello["environment"] = environment()
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        count, cpu = int(line), time.process_time()
        wall = step(count)
        # `fit` runs one step more than it counts.
        cpu = (time.process_time() - cpu) / (count + (contender == "keras"))
        print(json.dumps([wall / count, cpu]), file=answers, flush=True)


class Process:
    """A contender at work in another process."""

    def __init__(self, contender: str, alpha: float, size: int, batch: int) -> None:
        command = [sys.executable, __file__, "--worker", contender]
        command += ["--alpha", str(alpha), "--size", str(size), "--batch", str(batch)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        environment = os.environ | ({"TF_ENABLE_ONEDNN_OPTS": "0"} if contender == "off" else {})
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self.contender = contender
        self.hello = self._answer()

    def steps(self, count: int) -> tuple[float, float]:
        """Runs ``count`` steps; returns (wall, CPU) seconds of one."""
        time.sleep(0.3)  # until the threads of the one before have stopped spinning
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return tuple(self._answer())

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"{self.contender} stopped:\n{self.errors.read()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def measure(alpha: float, size: int, batch: int, rounds: int, seconds: float) -> tuple[dict, dict]:
    """Measures one case.

    Args:
        alpha: width multiplier; ``size`` in pixels and ``batch`` in images complete the case.
        rounds: how often each contender has its turn, of about ``seconds``.

    Returns:
        The case's results, and the environment they were measured in.
    """
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in CONTENDERS:
            processes[name] = Process(name, alpha, size, batch)
            stack.callback(processes[name].close)
        parameters = {name: process.hello["parameters"] for name, process in processes.items()}
        if len(set(parameters.values())) > 1:
            sys.exit(f"not the same network: trainable parameters {parameters}; try --alpha 0.25, 0.5, 0.75, 1")
        counts = {}
        for name, process in processes.items():
            process.steps(2)  # traces and compiles
            counts[name] = max(2, round(seconds / process.steps(2)[0]))
        wall, cpu = ({name: [] for name in CONTENDERS} for _ in range(2))
        for number in range(rounds):
            for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                measured = processes[name].steps(counts[name])
                wall[name].append(measured[0])
                cpu[name].append(measured[1])
        environment = processes["ours"].hello["environment"]
    result = {
        "alpha": alpha,
        "size": size,
        "batch": batch,
        "trainable_parameters": parameters["ours"],
        "rounds": rounds,
        "steps_per_round": counts,
        "images_per_second": {name: spread([batch / second for second in wall[name]]) for name in CONTENDERS},
        "cpu_seconds_per_step": {name: spread(cpu[name]) for name in CONTENDERS},
        "ratio": {
            f"ours/{name}": spread([theirs / mine for mine, theirs in zip(wall["ours"], wall[name], strict=True)])
            for name in CONTENDERS[1:]
        },
        "seconds_per_step": wall,
    }
    return result, environment


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest, to four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def show(result: dict) -> None:
    """Prints one case."""
    print(f"alpha {result['alpha']:g}, {result['size']} px, batch {result['batch']}")
    for name in CONTENDERS:
        speed, cpu = result["images_per_second"][name], result["cpu_seconds_per_step"][name]["median"]
        print(f"  {name:6} {speed['median']:8.1f} images/s   {cpu:.3f} CPU s a step")
    for name, ratio in result["ratio"].items():
        print(f"  {name:11} {ratio['median']:.2f}  ({ratio['min']:.2f}..{ratio['max']:.2f})", flush=True)


def table(results: list[dict]) -> str:
    """The cases as CSV, one line for each contender of each."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ["images_per_second", "ours_over_it", "ours_over_it_min", "ours_over_it_max", "cpu_seconds_per_step"]
    writer.writerow(["alpha", "size", "batch", "contender", *columns])
    for result in results:
        for name in CONTENDERS:
            ratio = result["ratio"].get(f"ours/{name}", {"median": 1.0, "min": 1.0, "max": 1.0})
            speed, cpu = result["images_per_second"][name], result["cpu_seconds_per_step"][name]
            case = [result["alpha"], result["size"], result["batch"], name, speed["median"]]
            writer.writerow([*case, ratio["median"], ratio["min"], ratio["max"], cpu["median"]])
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--alpha", type=float, help="width multiplier of a single case")
    parser.add_argument("--size", type=int, help="its pixels")
    parser.add_argument("--batch", type=int, help="its images a step")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender (9)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn, about (3)")
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write, without .json and .csv")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    case = (options.alpha, options.size, options.batch)
    if options.worker:
        work(options.worker, *case)
        return
    if any(case) and not all(case):
        parser.error("--alpha, --size and --batch go together")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    load = {"begin": os.getloadavg()[0]}
    if load["begin"] > 0.5:
        busy = f"the machine is busy (load average {load['begin']:.1f})"
        print(f"{busy}: wide spread, and ours/torch means nothing", file=sys.stderr)
    results, environment = [], {}
    for alpha, size, batch in [case] if all(case) else CASES:
        result, environment = measure(alpha, size, batch, options.rounds, options.seconds)
        results.append(result)
        show(result)
    load["end"] = os.getloadavg()[0]
    report = {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python", "benchmarks/train_throughput.py", *sys.argv[1:]]),
        "environment": environment,
        "load_average": load,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "cases": results,
    }
    write_json(options.out.with_name(f"{options.out.name}.json"), report)
    write_text(options.out.with_name(f"{options.out.name}.csv"), table(results))
    print(f"written to {options.out}.json and .csv")


if __name__ == "__main__":
    main()
