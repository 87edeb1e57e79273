"""The report of a measured grid: complete in itself, safe against names, whatever was not measured."""

import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from mobilenets.errors import UserError
from mobilenets.evaluation.chosen import METRICS
from mobilenets.selection import table
from mobilenets.selection.grid_pictures import compared, draw_front, draw_maps
from mobilenets.selection.grid_report import render
from test_evaluation_report import HOSTILE, Page

TARGETS = {"litert": "litert", "onnx": "onnxruntime", "openvino": "openvino"}
HEADINGS = [
    *("MobileNet V1", "Choose", "Accuracy against latency", "Pareto fronts"),
    *("Every width and resolution", "Not measured", "How it was measured"),
]


@pytest.fixture(autouse=True)
def silent():
    """Drawing must not warn, whatever it draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def row(alpha, size, precision, target, task="classify"):
    ratio = alpha * size / 14 * (0.6 if precision == "int8" else 1) * (1 + list(TARGETS).index(target))
    accuracy = 0.8 + 0.1 * alpha + 0.05 * min(size / 28, 1 + size / 1000) - (0.0123 if precision == "int8" else 0)
    return {
        "width_multiplier": alpha,
        "resolution": size,
        "precision": precision,
        "target": target,
        "runtime": TARGETS[target],
        "threads": 2,
        **{column: round(accuracy, 6) for column in METRICS[task].values()},
        "ratio": ratio,
        "ratio_least": ratio * 0.9,
        "ratio_most": ratio * 1.25,
        "reference_ms": 2.0,
        "file_bytes": int(3e6 * alpha),
        "memory_bytes": 12_345_678,
        "macs": int(1e7 * alpha * size),
        "params": int(8e5 * alpha),
        "computed": precision,
    }


def make(
    directory,
    alphas=(0.25, 0.5),
    sizes=(16, 28),
    kinds=("float32", "int8"),
    targets=tuple(TARGETS),
    task="classify",
    **more,
):
    """Writes a grid; returns what was written."""
    every = np.array(np.meshgrid(alphas, sizes, kinds, targets, indexing="ij"), object).reshape(4, -1).T
    rows = [row(*of, task) for of in every]
    grid = {
        "format": 1,
        "task": task,
        "run": "runs/fashion",
        "network": "v1",
        "classes": 10,
        "data": "fashion-mnist",
        "images": 2000,
        "identity": {},
        "machine": {
            "processor": "Some CPU",
            "cores": 4,
            "memory_bytes": 8 * 10**9,
            "python": "3.12.1",
            "versions": {"keras": "3.15.1"},
        },
        "reference": {"width_multiplier": 0.5, "resolution": 28, "precision": "float32", "target": "litert"},
        "measured": "2026-02-03T10:12:13Z",
        "rows": rows,
        "skipped": [],
    } | more
    table.write(grid, directory)
    return grid


def change(directory, edit):
    """Edits a grid that was written, as a stranger's file might be."""
    grid = json.loads((directory / table.GRID).read_text())
    edit(grid)
    (directory / table.GRID).write_text(json.dumps(grid))


def size_of(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5
        return image.size


def test_a_full_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skipped = [
        {"width_multiplier": alpha, "resolution": 28, "precision": "int8", "target": "onnx", "runtime": "onnxruntime"}
        | {"reason": "no such operator"}
        for alpha in (0.25, 0.5)
    ]
    make(tmp_path / "grid", skipped=skipped)
    path = render(tmp_path / "grid")
    assert path == tmp_path / "grid" / "report.html"
    page = Page(path)
    assert page.headings == HEADINGS
    for expected in (
        "α 0.25, 0.5 16, 28 pixels 10 classes data set fashion-mnist",
        "24 files of 4 networks were written, run and timed on Some CPU",
        "Most accurate 90.0 % 2.00 ms α 0.5, 28 px, float32, LiteRT",
        "Fastest 0.343 ms 84.1 % α 0.25, 16 px, int8, LiteRT",
        "LiteRT 8 of 8 files",
        "OpenVINO 8 of 8 files",
        "28 px float32 90.0 % 2.00 ms 1.80 to 2.50 ms 1.50 MB 12.3 MB 140 M 400 k",
        "known to about ±1.3 points",
        "ONNX Runtime int8 α 0.25, 28 px; α 0.5, 28 px no such operator",
        "(α 0.5, 28 px, float32, LiteRT)",
        "times the reference's median over the whole grid, 2.00 ms",
        "Python 3.12.1 · keras 3.15.1",
        "mobilenets choose runs/fashion --latency-ms 5",
    ):
        assert expected in page.text, expected
    assert page.tags.count("img") == 2
    assert str(tmp_path) not in page.source


def test_a_detector_is_measured_by_its_ap(tmp_path):
    make(tmp_path, task="detect")
    page = Page(render(tmp_path))
    assert page.headings[2] == "AP against latency"
    assert "Highest AP 90.0 % 2.00 ms" in page.text
    assert "beats in both AP and latency" in page.text
    for word in ("ccura", "known to about"):  # an AP is no share of the images
        assert word not in page.text
    assert page.tags.count("img") == 2
    for spoil in ({"task": "classify"}, {"task": ["detect"]}, {"task": "segment"}):
        change(tmp_path, lambda grid, spoil=spoil: grid.update(spoil))
        with pytest.raises(UserError, match="damaged"):
            render(tmp_path)


def test_only_the_front_is_in_the_table(tmp_path):
    make(tmp_path, kinds=["float32"], targets=["litert"])
    # Slower and worse than every other one.
    change(tmp_path, lambda grid: grid["rows"][0].update(accuracy=0.1234, latency_ms=99.0, pareto=True))
    page = Page(render(tmp_path))
    assert "LiteRT 3 of 4 files" in page.text
    assert "12.3 %" not in page.text


def test_loads_nothing_and_runs_nothing(tmp_path):
    make(tmp_path, targets=["litert"])
    page = Page(render(tmp_path))
    assert all(source.startswith("data:") for source in page.sources if source != "grid.csv")
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.source


def test_hostile_names_stay_names(tmp_path):
    make(tmp_path)

    def edit(grid):
        grid["network"], grid["data"], grid["run"], grid["measured"] = HOSTILE[0], HOSTILE[1], HOSTILE[1], HOSTILE[0]
        grid["machine"] |= {"processor": HOSTILE[0], "versions": {HOSTILE[1]: HOSTILE[0]}}
        grid["reference"] |= {"precision": HOSTILE[0], "target": HOSTILE[1]}
        grid["rows"][0] |= dict.fromkeys(("precision", "target", "runtime", "computed"), HOSTILE[3])
        grid["rows"][1] |= dict.fromkeys(("precision", "target", "runtime", "computed"), HOSTILE[0])
        entry = dict.fromkeys(("precision", "target", "runtime"), HOSTILE[1])
        grid["skipped"] = [entry | {"reason": HOSTILE[0]}, entry | {"reason": HOSTILE[2]}]

    change(tmp_path, edit)
    page = Page(render(tmp_path))
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert page.text.count("<script>alert(1)</script>") > 3
    assert "{{ 7 * 7 }}" in page.text


@pytest.mark.parametrize(
    "nonsense",
    [None, "?", -1, 1e300, 10**400, [[1]], {"a": {"b": []}, "versions": 1}, True],
    ids=lambda value: repr(value)[:9],
)
def test_what_the_table_does_not_check_may_be_anything(tmp_path, nonsense):
    make(tmp_path, alphas=[0.5], sizes=[28], targets=["litert"])

    def edit(grid):
        for key in ("run", "data", "machine", "measured"):
            grid[key] = nonsense
        for key in ("least_ms", "most_ms", "computed", "pareto"):
            grid["rows"][0][key] = nonsense
        grid["reference"] = {"width_multiplier": nonsense, "latency_ms": 1.0, "target": nonsense}
        grid["skipped"] = [nonsense, {"reason": nonsense, "runtime": nonsense, "resolution": nonsense}]

    change(tmp_path, edit)
    page = Page(render(tmp_path))
    assert "None" not in page.text
    assert page.headings[-1] == "How it was measured"


@pytest.mark.parametrize("latency", [0, 1e-300, 1e300])
def test_latencies_that_cannot_be_drawn_leave_the_others(tmp_path, latency):
    make(tmp_path, targets=["litert"])
    change(tmp_path, lambda grid: grid["rows"][0].update(latency_ms=latency, accuracy=7))
    assert Page(render(tmp_path)).tags.count("img") == 2


def test_missing_memory_is_a_dash(tmp_path):
    make(tmp_path, alphas=[0.5], sizes=[28], kinds=["float32"], targets=["litert"])
    change(tmp_path, lambda grid: grid["rows"][0].update(memory_bytes=None))
    page = Page(render(tmp_path))
    assert "1.50 MB – 140 M" in page.text
    assert "1 file of 1 network was written" in page.text


@pytest.mark.parametrize(
    "grid",
    [
        {"sizes": [28]},
        {"alphas": [0.5]},
        {"alphas": [0.5], "sizes": [28], "kinds": ["int8"], "targets": ["onnx"]},
        {"targets": ["litert"]},
        {"kinds": ["int8"]},
        {"kinds": ["float32", "float16", "int8"]},
        {"alphas": np.linspace(0.1, 1, 8).tolist(), "sizes": list(range(96, 320, 32))},
    ],
)
def test_pictures_of_partial_grids(tmp_path, grid):
    make(tmp_path, **grid)
    assert Page(render(tmp_path)).tags.count("img") == 2
    front, maps = tmp_path / "pictures" / "front.png", tmp_path / "pictures" / "maps.png"
    width, height = size_of(front)
    assert 1400 < width < 1800
    assert 700 < height < 1100
    width, height = size_of(maps)
    assert 300 < width < 2400
    assert 80 < height < 4000


def test_cells_that_were_not_measured(tmp_path):
    made = make(tmp_path, alphas=(0.25, 0.5, 1.0))
    draw = np.random.default_rng(0)
    for kept in (1, 7):
        part = made | {"rows": [made["rows"][index] for index in draw.choice(len(made["rows"]), kept, replace=False)]}
        table.write(part, tmp_path)
        page = Page(render(tmp_path))
        assert page.tags.count("img") == 2
        assert f"{kept} file" in page.text


def test_nothing_measured_leaves_no_headings(tmp_path):
    make(tmp_path, targets=["litert"])
    render(tmp_path)
    change(tmp_path, lambda grid: grid.update(rows=[]))
    page = Page(render(tmp_path))
    assert page.headings == [HEADINGS[0], HEADINGS[1], HEADINGS[-1]]
    assert "img" not in page.tags
    assert not list((tmp_path / "pictures").iterdir())


def test_a_change_is_told_in_the_runtime_that_measured_most(tmp_path):
    rows = make(tmp_path)["rows"]
    rows = [one for one in rows if one["runtime"] == "openvino" or one["precision"] == "float32"]
    name, changes = compared(rows, "int8")
    assert name == "openvino"
    assert len(changes) == 4
    assert changes[0.25, 16] == pytest.approx(-0.0123)
    assert compared(rows, "float16") == ("", {})


def test_more_than_anybody_can_read_is_not_drawn(tmp_path):
    made = make(tmp_path, alphas=np.linspace(0.01, 1, 60).tolist(), targets=["litert"])
    assert draw_maps(made, tmp_path / "maps.png") is None
    assert draw_front(made, tmp_path / "front.png")


def test_no_grid_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"grid\.json") as caught:
        render(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()
