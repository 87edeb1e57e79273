"""From JPEG files to labels: `mobilenets predict` against Keras' and PyTorch's own ways, images per second.

    python benchmarks/jpeg_to_label.py                       # V1, V2 and V3-Large, 1,000 files, about 12 minutes
    python benchmarks/jpeg_to_label.py --nets v1 --files 300 --rounds 3

The files are made here: 640x480 pixels, quality 90, noise smooth at six scales, so that they weigh what photographs
weigh. The model is trained for an epoch on 64 of them, to have a model directory; nobody looks at its labels. All
contenders run the same network at 224 pixels with the same weights, checked on the same pixels before the clock runs:

- ``ours`` and ``ours_int8``: `mobilenets.deployment.predict.predict`, a whole call: the card read, the fastest file of
  that precision verified and loaded, images decoded and classified.
- ``keras``: `keras.utils.image_dataset_from_directory` (crop_to_aspect_ratio) and `model.predict` on TensorFlow. The
  data set is built and the model compiled once, outside the time.
- ``torch``: Pillow (the central square, bilinear), a `DataLoader` whose workers persist, and the network run eagerly,
  channels_last, in inference_mode. It sees pictures turned by 180 degrees, see torch_network.py.

The last two run with the batch and the number of workers that were the fastest on 128 files (``warm`` in the result).
Each contender lives in a process of its own and only one works at a time; a round is a pass of each over all files,
forwards and backwards in turn; a ratio is taken within a round. ``split``: decoding alone and inference alone, of ours.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import train_throughput
from mobilenets.files import write_json
from train_throughput import spread

CONTENDERS = ("ours", "ours_int8", "keras", "torch")
SIZE, CLOSE, WARM = 224, 1e-3, 128
BATCHES, WORKERS = (8, 32), (0, 1, 2)
RESULT = Path(__file__).parent / "results" / "jpeg_to_label.json"
Passes = dict[str, Callable[[list[Path]], int]]  # by name of the setting: classifies files, returns how many


def write_photos(folder: Path, count: int) -> None:
    """Writes photo-like JPEGs, the same each time, in two classes."""
    import cv2

    scales = ((160, 1.0), (80, 0.6), (40, 0.4), (20, 0.25), (8, 0.15), (3, 0.08))  # pixels, share
    for index in range(count):
        rng = np.random.default_rng(index)
        photo = 120 + 3 * rng.standard_normal((480, 640, 3), np.float32)
        for cell, share in scales:
            coarse = rng.standard_normal((480 // cell + 3, 640 // cell + 3, 3), np.float32)
            coarse = 1.2 * coarse.mean(axis=2, keepdims=True) + 0.3 * coarse  # brightness varies more than colour
            photo += 55 * share * cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        place = folder / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{index:05}.jpg"
        cv2.imwrite(str(name), np.clip(photo, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def prepare(place: Path, net: str) -> None:
    """Writes the model directory, and for the check the weights, pixels and their probabilities."""
    from mobilenets.architectures import network
    from mobilenets.card import MODEL
    from mobilenets.data import load
    from mobilenets.deployment.export import export
    from mobilenets.models.builder import logits_model
    from mobilenets.models.saving import load_model, save_model
    from mobilenets.training.classify import train
    from mobilenets.training.settings import Settings

    directory = place / net
    settings = Settings(epochs=1, batch_size=16)
    train(load(str(place / "few")), directory, network(net), 1.0, SIZE, settings, quiet=True)
    model = load_model(directory)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8).repeat(56, axis=1).repeat(56, axis=2)
    # After four steps the statistics of batch normalization are far off, and all images look alike. With statistics
    # that fit, and logits that differ by about 1, a wrong network would show.
    for _ in range(30):
        model(pixels, training=True)
    logits = np.asarray(logits_model(model).predict_on_batch(pixels))
    kernel, bias = model.get_layer("logits").get_weights()
    scale = 1 / logits.std(axis=0).mean()
    model.get_layer("logits").set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])
    save_model(model, directory / MODEL)
    # No accuracy can be asked of it; export checks all the same that float32 files compute what it does.
    export(directory, ("litert", "onnx", "openvino"), ("float32", "int8"), max_drop=100)
    weights = {f"{layer.name}/{at}": array for layer in model.layers for at, array in enumerate(layer.get_weights())}
    np.savez(directory / "check.npz", pixels=pixels, expected=np.asarray(model.predict_on_batch(pixels)), **weights)


def make_ours(directory: Path, files: list[Path], precision: str) -> tuple[Passes, np.ndarray, Callable[[], dict]]:
    """Ours; what its file gives for the pixels of the check; and how its time splits."""
    from concurrent.futures import ThreadPoolExecutor

    from mobilenets.deployment import artifacts, predict
    from mobilenets.deployment.runtimes import load

    def classify(some: list[Path]) -> int:
        return len(predict.predict(directory, some, precision=precision)["images"])

    classify(files[:WARM])  # finds out which file is the fastest
    chosen = artifacts.find(predict.predict(directory, files[:WARM], precision=precision)["file"])
    with np.load(directory / "check.npz") as check:
        outputs = load(chosen.path, chosen.runtime)(check["pixels"])

    def split() -> dict:
        with predict._loaded(chosen, chosen.runtime, len(files)) as (runs, size, batch):
            pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
            calls = len(files) // (batch * len(runs))
            began = time.perf_counter()
            for _ in predict._results(files, [lambda images: images] * os.cpu_count(), size, chosen.crop, batch):
                pass
            decoded = time.perf_counter()
            with ThreadPoolExecutor(len(runs)) as pool:
                list(pool.map(lambda run: [run(pixels) for _ in range(calls)], runs))
            inference = (time.perf_counter() - decoded) / (calls * batch * len(runs))
        milliseconds = {"decoding": (decoded - began) / len(files) * 1e3, "inference": inference * 1e3}
        about = {"file": chosen.path.name, "images_a_call": batch, "copies": len(runs)}
        return about | {f"{name}_alone_ms": round(value, 3) for name, value in milliseconds.items()}

    return {"": classify}, outputs, split


def make_keras(directory: Path, files: list[Path]) -> tuple[Passes, np.ndarray, None]:
    """Keras on TensorFlow; settings are batches."""
    from mobilenets.models import keras
    from mobilenets.models.saving import load_model

    model = load_model(directory)
    options = {"labels": None, "shuffle": False, "image_size": (SIZE, SIZE), "crop_to_aspect_ratio": True, "verbose": 0}
    folder = str(files[0].parents[1])

    def classifier(batch: int) -> Callable[[list[Path]], int]:
        images = keras.utils.image_dataset_from_directory(folder, batch_size=batch, **options)

        def classify(some: list[Path]) -> int:
            found = images if len(some) == len(files) else images.take(len(some) // batch)
            return len(model.predict(found, verbose=0).argmax(axis=1))

        return classify

    with np.load(directory / "check.npz") as check:
        outputs = model.predict(check["pixels"].astype(np.float32), verbose=0)
    return {f"batch {batch}": classifier(batch) for batch in BATCHES}, outputs, None


def make_torch(directory: Path, files: list[Path]) -> tuple[Passes, np.ndarray, None]:
    """PyTorch; settings are batches and workers of the loader."""
    import torch
    from PIL import Image

    from mobilenets.card import read_card
    from torch_network import torch_network

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with np.load(directory / "check.npz") as check:
        weights = dict(check)
    model = torch_network(read_card(directory)["network"], weights, SIZE)

    class Photos(torch.utils.data.Dataset):
        def __init__(self, paths: list[Path]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> "torch.Tensor":
            with Image.open(self.paths[index]) as picture:
                width, height = picture.size
                side = min(width, height)
                left, top = (width - side) // 2, (height - side) // 2
                box = (left, top, left + side, top + side)
                small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
            return torch.from_numpy(np.asarray(small)[::-1, ::-1].copy())

    @torch.inference_mode()
    def run(pixels: "torch.Tensor") -> "torch.Tensor":  # channels last in memory already
        return model(pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)).softmax(1)

    def classifier(batch: int, workers: int) -> Callable[[list[Path]], int]:
        loaders = {}

        def classify(some: list[Path]) -> int:
            if len(some) not in loaders:
                options = {"num_workers": workers, "persistent_workers": workers > 0}
                loaders[len(some)] = torch.utils.data.DataLoader(Photos(some), batch, **options)
            return len(torch.cat([run(pixels).argmax(1) for pixels in loaders[len(some)]]))

        return classify

    outputs = run(torch.from_numpy(weights["pixels"][:, ::-1, ::-1].copy())).numpy()
    passes = {f"batch {batch}, workers {number}": classifier(batch, number) for batch in BATCHES for number in WORKERS}
    return passes, outputs, None


def work(contender: str, directory: Path, folder: Path) -> None:
    """A contender's process: ``pass`` or ``split`` comes in on a line, an answer in JSON goes out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    files = sorted(folder.rglob("*.jpg"))
    if contender.startswith("ours"):
        made = make_ours(directory, files, "int8" if contender == "ours_int8" else "float32")
    else:
        made = {"keras": make_keras, "torch": make_torch}[contender](directory, files)
    passes, outputs, split = made
    with np.load(directory / "check.npz") as check:
        off = float(np.abs(outputs - check["expected"]).max())
    speeds = {}
    for name, classify in passes.items():
        for _ in range(2 if len(passes) > 1 else 1):  # the first compiles
            began = time.perf_counter()
            count = classify(files[:WARM])
            speeds[name] = count / (time.perf_counter() - began)
    best = max(speeds, key=speeds.get)
    hello = {"difference": off, "setting": best, "warm": {name: round(speed, 1) for name, speed in speeds.items()}}
    if contender == "keras":
        from mobilenets.card import environment

        hello["environment"] = environment()
    passes[best](files)
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "split":
            print(json.dumps(split()), file=answers, flush=True)
            continue
        began = time.perf_counter()
        count = passes[best](files)
        seconds = time.perf_counter() - began
        if count != len(files):
            sys.exit(f"{count} of {len(files)} files classified")
        print(json.dumps(seconds), file=answers, flush=True)


class Process(train_throughput.Process):
    """A contender at work in another process."""

    def __init__(self, contender: str, directory: Path, folder: Path) -> None:
        command = [sys.executable, __file__, "--worker", contender, str(directory), str(folder)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        backend = "torch" if contender == "torch" else "tensorflow"
        environment = {"KERAS_BACKEND": backend, "OMP_WAIT_POLICY": "passive"}  # see train_throughput.py
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | environment,
        )
        self.contender = contender
        self.hello = self._answer()

    def ask(self, what: str):
        """Sends a line; returns the answer."""
        time.sleep(0.3)  # until the threads of the one before have stopped spinning
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._answer()


def measure(directory: Path, folder: Path, count: int, rounds: int) -> tuple[dict, dict]:
    """Measures one network: its results, and the environment they were measured in."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in CONTENDERS:
            processes[name] = Process(name, directory, folder)
            stack.callback(processes[name].close)
        hellos = {name: process.hello for name, process in processes.items()}
        environment = hellos["keras"].pop("environment")
        for name, hello in hellos.items():
            if name != "ours_int8" and not hello["difference"] < CLOSE:
                sys.exit(f"{name}: not the same network, a probability is {hello['difference']:.2g} off")
        seconds = {name: [] for name in CONTENDERS}
        splits = {"ours": [], "ours_int8": []}
        for number in range(rounds):
            for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                seconds[name].append(processes[name].ask("pass"))
            for name, found in splits.items():
                found.append(processes[name].ask("split"))
    ratios = {
        f"{mine}/{name}": spread([theirs / own for own, theirs in zip(seconds[mine], seconds[name], strict=True)])
        for mine in splits
        for name in ("keras", "torch")
    }
    for name, found in splits.items():
        alone = [key for key in found[0] if key.endswith("_ms")]
        splits[name] = found[0] | {key: spread([entry[key] for entry in found]) for key in alone}
    result = {
        "network": directory.name,
        "files": count,
        "rounds": rounds,
        "images_per_second": {name: spread([count / second for second in seconds[name]]) for name in CONTENDERS},
        "ratio": ratios,
        "split": splits,
        "contenders": hellos,
        "seconds": seconds,
    }
    return result, environment


def show(result: dict) -> None:
    """Prints one network."""
    print(f"{result['network']}, {result['files']} files")
    for name, speed in result["images_per_second"].items():
        print(f"  {name:9} {speed['median']:8.1f} images/s   {result['contenders'][name]['setting']}")
    for name, ratio in result["ratio"].items():
        print(f"  {name:15} {ratio['median']:.2f}  ({ratio['min']:.2f}..{ratio['max']:.2f})")
    for name, split in result["split"].items():
        decoding, inference = (split[f"{part}_alone_ms"]["median"] for part in ("decoding", "inference"))
        print(
            f"  {name}: {split['file']}, decoding alone {decoding:.2f} ms, inference alone {inference:.2f} ms an image"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["v1", "v2", "v3_large"], help="networks (v1 v2 v3_large)")
    parser.add_argument("--files", type=int, default=1000, help="JPEG files (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="passes of each contender (5)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where to write the result")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], *map(Path, options.worker[1:]))
        return
    if options.prepare:
        prepare(Path(options.prepare[0]), options.prepare[1])
        return
    if options.files < WARM or options.rounds < 1:
        parser.error(f"--files must be at least {WARM} and --rounds 1")
    load = {"begin": os.getloadavg()[0]}
    if load["begin"] > 0.5:
        print(f"the machine is busy (load average {load['begin']:.1f}): wide spread", file=sys.stderr)
    results, environment = [], {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_photos(place / "photos", options.files)
        write_photos(place / "few", 64)
        weight = sum(path.stat().st_size for path in (place / "photos").rglob("*.jpg")) / options.files
        for net in options.nets:
            subprocess.run([sys.executable, __file__, "--prepare", name, net], check=True, stdout=subprocess.DEVNULL)
            result, environment = measure(place / net, place / "photos", options.files, options.rounds)
            results.append(result)
            show(result)
    load["end"] = os.getloadavg()[0]
    report = {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python", "benchmarks/jpeg_to_label.py", *sys.argv[1:]]),
        "environment": environment,
        "load_average": load,
        "bytes_a_file": round(weight),
        "networks": results,
    }
    write_json(options.result, report)
    print(f"written to {options.result}")


if __name__ == "__main__":
    main()
