"""``mobilenets info --compare``: every network beside every other, with the accuracy published for it."""

import csv
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from mobilenets.architectures import NETWORKS, cost, write_out
from mobilenets.errors import UserError
from mobilenets.files import writing

COLORS = {"v1": "tab:blue", "v2": "tab:orange", "v3": "tab:green", "v4": "tab:purple"}
PICTURES = (".png", ".svg", ".pdf")


def published() -> list[dict[str, Any]]:
    """ImageNet results (1000 classes, top-1 in percent of the validation set) by network, width and resolution.

    Returns:
        ``network``, ``title``, ``width_multiplier``, ``resolution``, ``top1``, ``source`` (who published it), and
        ``macs``, ``params`` and ``peak_activation_bytes`` as counted from the table.
    """
    text = resources.files("mobilenets.architectures").joinpath("published.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        network, size = NETWORKS[row["network"]], int(row["resolution"])
        alpha = float(row["width_multiplier"])
        rows.append(
            {
                "network": network.name,
                "title": network.title,
                "width_multiplier": alpha,
                "resolution": size,
                "top1": float(row["top1"]),
                "source": row["source"],
                **asdict(cost(write_out(network, (size, size, 3), 1000, alpha))),
            }
        )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws published accuracy against MACs; small dots where many widths and resolutions are known.

    Raises:
        UserError: the picture cannot be written there, or not in that format.
    """
    if path.suffix not in PICTURES:
        raise UserError(f"--plot {path}: must end in one of {', '.join(PICTURES)}")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = sorted((row for row in rows if row["network"] == name), key=lambda row: row["macs"])
        color = COLORS.get(name[:2], "0.45")
        x, y = [row["macs"] / 1e6 for row in mine], [row["top1"] for row in mine]
        axes.plot(x, y, "o", color=color, markersize=4 if len(mine) > 4 else 7, alpha=0.85)
        # Above to the left, or below to the right: where the neighbours' names are not.
        above = "hybrid" in name or name in ("v3_large", "v3_small", "v2")
        axes.annotate(
            mine[-1]["title"].removeprefix("MobileNet "),
            (x[-1], y[-1]),
            xytext=(-4, 6) if above else (6, -10),
            textcoords="offset points",
            ha="right" if above else "left",
            color=color,
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.set_xlabel("multiply-accumulates, millions (counted)")
    axes.set_ylabel("ImageNet top-1 accuracy, % (as published)")
    axes.grid(alpha=0.3)
    axes.margins(x=0.1)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)
