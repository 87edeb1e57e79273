"""Latency of our files beside what users do today, and beside files that the public tools make of the same model.

    pip install ai-edge-quantizer nncf tf2onnx timm torch        # besides mobilenets[onnx,openvino]
    python benchmarks/latency.py                                 # 40 minutes; results/latency.json and .csv

V1, V2 and V3-Large at α 1 and 224 pixels, 1000 classes, random weights (which are as fast as trained ones), 1 and 32
images a call, 1 and 2 threads. Three kinds of contenders:

- ``ours``: our LiteRT, ONNX and OpenVINO files and SavedModel, in float32 and int8, uint8 images in;
- ``tools``: of the same Keras model, `model.export` to LiteRT, ONNX, OpenVINO and SavedModel; int8 by TensorFlow's
  converter, ai-edge-quantizer, ONNX Runtime's `quantize_static` and NNCF, each as it comes; float32 images in, but
  for ai-edge-quantizer's file, which takes integers of its own scale;
- ``today``: `model.predict`, the model in a `tf.function`, and timm's network in PyTorch eager, frozen by TorchScript
  and compiled by `torch.compile`, all channels_last.

Each contender lives in a process of its own; they take turns, of which every second round goes backwards, and ratios
are taken within a round, so what slows the machine cancels out as far as it lasts a round.

Of some hundred ratios with seven rounds each a few lie above the 5 % that are allowed by chance alone. ``--again``
looks at those of the result once more, each pair alone, in 21 rounds of a second, and adds what it finds as ``again``.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

import public_tools
from mobilenets.card import now
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.machine import fingerprint
from mobilenets.deployment.partitions import partitions
from mobilenets.deployment.worker import Worker
from mobilenets.files import write_json, writing

NETWORKS = {"v1": "mobilenetv1_100", "v2": "mobilenetv2_100", "v3_large": "mobilenetv3_large_100"}  # and timm's names
SIZE, CLASSES, CALIBRATION = 224, 1000, 16
ALLOWED = 1.05  # of the time of the best public way to make the same kind of file
MANY = " batch32"  # ends the name of a file made for 32 images a call
AI_EDGE = f"tools {public_tools.AI_EDGE}"
TODAY = ("model.predict", "tf.function", "torch eager", "torch.jit frozen", "torch.compile")
RESULT = Path(__file__).parent / "results" / "latency"


def pixels(count: int) -> np.ndarray:
    """Images of coarse patches and some noise, uint8."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 206, (count, 28, 28, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (patches + rng.integers(0, 50, patches.shape)).astype(np.uint8)


# -- files ----------------------------------------------------------------------------------------------------------


def write_files(name: str, directory: Path) -> dict[str, tuple[Path, str]]:
    """Writes all files of a network; returns path and runtime by contender. Those of a tool that fails are left out."""
    from mobilenets.architectures import network
    from mobilenets.deployment.targets import TARGETS, Variant, Writer
    from mobilenets.models.builder import classifier

    model = classifier(network(name), (SIZE, SIZE, 3), CLASSES)
    model.save(directory / "model.keras")
    images = pixels(CALIBRATION)
    writer = Writer(model, images)
    found: dict[str, tuple[Path, str]] = {}
    for target, kind in TARGETS.items():
        for precision in ("float32", "int8"):
            path = writer.write(Variant(target, precision, batch=kind.batch), directory / "ours")
            found[f"ours {target} {precision}"] = (path, kind.runtime)
            if kind.batch:
                path = writer.write(Variant(target, precision, batch=32), directory / "ours")
                found[f"ours {target} {precision}{MANY}"] = (path, kind.runtime)
    found["ours onnx int8 in openvino"] = (directory / "ours" / "model_int8.onnx", "openvino")
    (directory / "tools").mkdir()
    for contender, (path, runtime, error) in public_tools.write_files(model, images, directory / "tools").items():
        if error:
            print(f"{name}: tools {contender}: failed: {error}", file=sys.stderr)
        else:
            found[f"tools {contender}"] = (path, runtime)
    return found


# -- what users do today --------------------------------------------------------------------------------------------


def make(contender: str, name: str, directory: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """A function of uint8 images (batch, height, width, 3)."""
    if contender == AI_EDGE:
        return public_tools.run_integers(directory / "tools" / public_tools.AI_EDGE_FILE, threads)
    if contender in ("model.predict", "tf.function"):
        import tensorflow as tf

        from mobilenets.models.saving import load_model

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        model = load_model(directory / "model.keras")
        if contender == "model.predict":
            model.jit_compile = False  # the kinder way: XLA is several times slower here
            return lambda images: model.predict(images, verbose=0)
        function = tf.function(lambda images: model(images, training=False))
        return lambda images: function(tf.constant(images)).numpy()
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from peers import import_timm

    torch.set_num_threads(threads)
    model = import_timm().create_model(NETWORKS[name]).eval().to(memory_format=torch.channels_last)
    example = torch.zeros(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    if contender == "torch.jit frozen":
        with torch.inference_mode(False), torch.no_grad():
            model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))
    elif contender == "torch.compile":
        model = torch.compile(model)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
            return model(scaled).softmax(1).numpy()

    return run


def work(contender: str, name: str, directory: str, threads: str) -> None:
    """A contender's process: batch and seconds come in on a line, milliseconds of the calls go out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    run = make(contender, name, Path(directory), int(threads))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        batch, seconds = json.loads(line)
        images, times, end = pixels(batch), [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            run(images)
            times.append((time.perf_counter() - began) * 1e3)
        print(json.dumps(times), file=answers, flush=True)


class Today:
    """A contender at work in another process; answers to ``times`` as `Worker` does."""

    def __init__(self, contender: str, name: str, directory: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", contender, name, str(directory), str(threads)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self._answer()

    def times(self, batch: int, seconds: float) -> list[float]:
        self.process.stdin.write(json.dumps([batch, seconds]) + "\n")
        self.process.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(self.errors.read()[-1000:])
        return line

    def __enter__(self) -> "Today":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.errors.close()


# -- measuring ------------------------------------------------------------------------------------------------------


def measure(
    name: str, files: dict[str, tuple[Path, str]], directory: Path, threads: int, batches: list[int], rounds: int
) -> list[dict[str, Any]]:
    """One network and number of threads: all contenders in turns, for each number of images a call."""
    makers = {key: lambda place=place: Worker(*place, threads) for key, place in files.items()}
    if AI_EDGE in files:
        makers[AI_EDGE] = lambda: Today(AI_EDGE, name, directory, threads)
    makers |= {f"today {way}": lambda way=way: Today(way, name, directory, threads) for way in TODAY}
    rows = []
    with ExitStack() as stack:
        loaded: dict[str, Any] = {}
        for contender, maker in makers.items():
            try:
                loaded[contender] = stack.enter_context(maker())
            except Exception as error:
                print(f"{name}: {contender}: failed: {str(error)[-300:]}", file=sys.stderr)
        for batch in batches:
            workers = {}
            for contender, worker in loaded.items():
                # The file made for so many images takes the place of that for one.
                suited = contender.endswith(MANY) == (batch == 32 and f"{contender.removesuffix(MANY)}{MANY}" in loaded)
                if suited:
                    try:
                        worker.times(batch, 0)
                        workers[contender.removesuffix(MANY)] = (worker, files.get(contender, (None, None)))
                    except Exception as error:
                        print(f"{name}: {contender}: failed: {str(error)[-300:]}", file=sys.stderr)
            times = interleaved([worker for worker, _ in workers.values()], [batch] * len(workers), rounds)
            means = {who: [statistics.mean(turn) for turn in turns] for who, turns in zip(workers, times, strict=True)}
            for (contender, (_, (path, runtime))), turns in zip(workers.items(), times, strict=True):
                predict = means["today model.predict"]
                ratios = [theirs / mine for theirs, mine in zip(predict, means[contender], strict=True)]
                rows.append(
                    {
                        **{"network": name, "threads": threads, "batch": batch},
                        **{"contender": contender, "runtime": runtime},
                        **{
                            f"{key}_ms": value for key, value in summary(turns).items() if key not in ("rounds", "runs")
                        },
                        "times_as_fast_as_predict": round(statistics.median(ratios), 2),
                        "partitions": partitions(path) if runtime == "litert" else None,
                        "file_bytes": path.stat().st_size if path and path.is_file() else None,
                        "means_ms": [round(value, 4) for value in means[contender]],
                    }
                )
    return rows


def again(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of a report that are above what is allowed, each measured once more."""
    above = [row for row in report["against_tools"] if row["ratio"] > ALLOWED]
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in dict.fromkeys(row["network"] for row in above):
            directory = Path(temporary) / name
            directory.mkdir()
            files = write_files(name, directory)
            for row in (row for row in above if row["network"] == name):
                many = f"{row['contender']}{MANY}"
                ours = files[many if row["batch"] == 32 and many in files else row["contender"]]
                with ExitStack() as stack:
                    pair = [stack.enter_context(Worker(*ours, row["threads"]))]
                    if row["against"] == AI_EDGE:
                        pair.append(stack.enter_context(Today(AI_EDGE, name, directory, row["threads"])))
                    else:
                        pair.append(stack.enter_context(Worker(*files[row["against"]], row["threads"])))
                    turns = interleaved(pair, [row["batch"]] * 2, rounds=21, seconds=1.0)
                mine, theirs = ([statistics.mean(turn) for turn in side] for side in turns)
                ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
                found.append(_ratio(row | {"before": row["ratio"]}, ratios))
    return found


def _ratio(row: dict[str, Any], ratios: list[float]) -> dict[str, Any]:
    return row | {
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['network']:9} {row['threads']} threads, {row['batch']:2} images: {row['contender']:25} takes "
        f"{row['ratio']:.2f} ({row['least']:.2f} … {row['most']:.2f}) of the time of {row['against']}",
        flush=True,
    )


def against_tools(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our files' time as a share of that of the fastest tool's file of the same kind and precision."""
    found = []
    for row in rows:
        who, *kind = row["contender"].split(maxsplit=2)
        if who != "ours" or "in" in kind[1].split():
            continue
        same = [
            other for other in rows if _same(other, row) and other["contender"].startswith(f"tools {' '.join(kind)}")
        ]
        if same:
            best = min(same, key=lambda other: other["median_ms"])
            ratios = [mine / theirs for mine, theirs in zip(row["means_ms"], best["means_ms"], strict=True)]
            about = {key: row[key] for key in ("network", "threads", "batch", "contender")}
            found.append(_ratio(about | {"against": best["contender"]}, ratios))
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("network", "threads", "batch"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write, without .json and .csv")
    parser.add_argument("--again", action="store_true", help="look again at what --out has above 5 %%")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    if options.again:
        path = options.out.with_name(f"{options.out.name}.json")
        report = json.loads(path.read_text())
        report["again"] = {"measured": now(), "machine": fingerprint(), "against_tools": again(report)}
        for row in report["again"]["against_tools"]:
            _show(row)
        write_json(path, report)
        return
    load, rows = {"begin": os.getloadavg()[0]}, []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.networks.split(","):
            directory = Path(temporary) / name
            directory.mkdir()
            files = write_files(name, directory)
            batches = list(map(int, options.batch.split(",")))
            for threads in map(int, options.threads.split(",")):
                found = measure(name, files, directory, threads, batches, options.rounds)
                rows += found
                for row in sorted(found, key=lambda row: (row["batch"], row["median_ms"])):
                    print(
                        f"{name:9} {threads} threads {row['batch']:2} images {row['median_ms']:9.2f} ms  "
                        f"{row['contender']}",
                        flush=True,
                    )
    load["end"] = os.getloadavg()[0]
    report = {
        "benchmark": "latency",
        "measured": now(),
        "machine": fingerprint(),
        "load_average": load,
        "against_tools": against_tools(rows),
        "rows": rows,
    }
    for row in report["against_tools"]:
        _show(row)
    write_json(options.out.with_name(f"{options.out.name}.json"), report)
    with writing(options.out.with_name(f"{options.out.name}.csv")) as temporary:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            columns = [key for key in rows[0] if key != "means_ms"]
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
