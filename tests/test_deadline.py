"""Holding a deadline: the controller on simulated machines, and a predictor on a real one."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mobilenets.architectures import V1
from mobilenets.errors import UserError
from mobilenets.selection import deadline as keeping
from mobilenets.selection.controller import LONGEST, SETTLE, WINDOW, Controller
from mobilenets.selection.deadline import DeadlinePredictor, Frame, FrontMember
from mobilenets.selection.deadline_picture import Phase, draw_frames
from once import once
from test_elastic import QUICK

COSTS, DEADLINE, BEST = [1.0, 1.6, 2.5, 4.0, 6.0, 9.0], 12.0, 5


def simulate(slowness, frames, *, noise=0.05, overhead=0.0, spikes=(), stalls=0.0, bend=0.0, seed=0, costs=COSTS):
    """Runs a controller on a machine.

    Args:
        slowness: of a frame's number.
        frames: how many.
        noise: standard deviation of the time's logarithm.
        overhead: ms of every frame.
        spikes: numbers of frames that take ten times as long; or their share.
        stalls: probability a ms that the system takes away 4 ms.
        bend: what a network takes longer than its cost says, for every place in the front.

    Returns:
        The network of every frame, and whether it was late.
    """
    rng, controller = np.random.default_rng(seed), Controller(costs, DEADLINE)
    used, late = [], []
    for number in range(frames):
        member = controller.current
        ms = costs[member] * (1 + bend * member) * slowness(number) * np.exp(rng.normal(0, noise))
        draw = rng.random()
        if draw < spikes if isinstance(spikes, float) else number in spikes:
            ms *= 10
        if rng.random() < stalls * ms:
            ms += 4
        ms += overhead
        used.append(member)
        late.append(ms > DEADLINE)
        assert controller.observe(ms, overhead) == controller.current
    return np.array(used), np.array(late)


def steps(used):
    return np.count_nonzero(np.diff(used))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("slowness", [1, 1.1, 1.33, 1.6, 2, 3, 5, 8])
def test_constant_load_is_held_without_going_to_and_fro(slowness, noise):
    used, late = simulate(lambda _: slowness, 2000, noise=noise)
    assert 1 - late.mean() >= 0.95
    assert steps(used[1000:]) <= 40  # noise of 20 % now and then looks like another load
    if noise == 0.02:
        assert steps(used) <= 2
        # Not lower than needed: the next one would have come near the deadline.
        holds = max(i for i, cost in enumerate(COSTS) if cost * slowness <= 0.8 * DEADLINE)
        assert used[-1] >= holds


@pytest.mark.parametrize("overhead", [0.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_load_in_steps_is_followed_down_and_up_again(seed, overhead):
    def slowness(number):
        return (1, 2, 3, 5, 1)[number // 500]

    used, late = simulate(slowness, 2500, overhead=overhead, seed=seed)
    phases = used.reshape(5, 500)
    assert 1 - late.mean() >= 0.98
    assert (np.diff(phases[:4].mean(axis=1)) < 0).all()
    best = used[100]
    assert best == (BEST if not overhead else BEST - 1 + (overhead + COSTS[BEST] <= 0.85 * DEADLINE))
    back = np.flatnonzero(phases[4] == best)[0]
    assert back <= WINDOW + 2 * SETTLE * len(COSTS)  # two seconds or three of a camera
    assert (phases[4][back:] == best).mean() > 0.9


def test_a_load_that_comes_at_once_costs_two_frames():
    used, late = simulate(lambda number: 5 if number >= 100 else 1, 300, noise=0.02)
    assert late.sum() <= 2
    assert used[99] == BEST
    assert used[102] == 1  # the largest that five times the time leaves


def test_a_single_hiccup_costs_one_step_for_a_moment():
    used, late = simulate(lambda _: 1, 400, noise=0.02, spikes={100, 250})
    assert late.sum() == 2
    assert used.min() == BEST - 1
    assert (used == BEST - 1).sum() <= 2 * (SETTLE + 1)
    used, late = simulate(lambda _: 1, 400, noise=0.02, spikes={100, 101})  # two in a row look like a load
    assert late.sum() <= 2
    assert (used[101 + WINDOW + 2 * SETTLE * len(COSTS) :] == BEST).all()


@pytest.mark.parametrize("share", [0.005, 0.01, 0.03])
def test_hiccups_at_random_are_borne(share):
    used, late = simulate(lambda _: 1, 3000, spikes=share)
    assert 1 - late.mean() >= 0.95
    assert used.mean() > (4.5 if share <= 0.01 else 2.5)


@pytest.mark.parametrize("slowness", [1.0, 1.3, 2.0])
def test_what_the_scheduler_takes_away_is_borne(slowness):
    _, late = simulate(lambda _: slowness, 3000, stalls=0.01)
    assert 1 - late.mean() >= 0.95


def test_a_network_that_does_not_hold_is_tried_less_and_less_often_until_the_load_ends():
    # Under load the slower networks suffer more than the faster ones tell.
    controller, tries = Controller([2.0, 6.0], 10.0), []
    controller.current = 0
    for number in range(3000):
        ms = (2.0, 6.0)[controller.current] * (1.1 if controller.current == 0 or number >= 2500 else 2.0)
        before = controller.current
        controller.observe(ms if number < 2500 else ms / 1.5)
        if controller.current > before:
            tries.append(number)
    during = [number for number in tries if number < 2500]
    assert len(during) <= 22
    assert max(np.diff(during)) >= LONGEST
    # It became faster: no need to wait any longer.
    assert tries[-1] - 2500 <= WINDOW + SETTLE
    assert controller.current == 1


def test_a_deadline_that_nothing_holds_keeps_the_fastest():
    used, late = simulate(lambda _: 20, 300)
    assert (used[3:] == 0).all()
    assert late.all()
    used, _ = simulate(lambda _: 1, 50, costs=[20.0, 30.0])
    assert (used == 0).all()


def test_one_network_and_strange_times():
    controller = Controller([1.0], 2.0)
    assert [controller.observe(ms, overhead) for ms, overhead in ((1, 0), (50, 0), (0, 0), (1, 5), (1, -1))] == [0] * 5
    for costs, deadline in (([], 1.0), ([2.0, 1.0], 1.0), ([0.0], 1.0), ([1.0], 0.0)):
        with pytest.raises(ValueError, match="ascend"):
            Controller(costs, deadline)


# -- the predictor --------------------------------------------------------------------------------------------------


def make(directory):
    from mobilenets.data import load
    from mobilenets.selection.grid import Plan, grid
    from mobilenets.training.classify import train

    digits = load("digits")
    digits = replace(digits, train=digits.train.some(320))
    train(digits, directory / "run", V1, [0.125, 0.25], 32, replace(QUICK, epochs=1), quiet=True)
    grid(directory / "run", Plan(targets=["litert"], precisions=["float32"], threads=1, rounds=2, seconds=0.02))
    # So that both are on the front, whatever the epoch taught.
    path = directory / "run" / "grid" / "grid.json"
    known = json.loads(path.read_text())
    known["rows"].sort(key=lambda row: row["macs"])
    for place, row in enumerate(known["rows"]):
        row |= {"accuracy": 0.5 + 0.1 * place, "latency_ms": row["macs"] / 1e6}
    path.write_text(json.dumps(known))


@pytest.fixture(scope="module")
def made(place):
    return once(place / "deadline", make) / "run"


@pytest.fixture
def run(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "run")


def picture(height=48, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_frames_are_classified_as_the_network_does(made):
    from mobilenets.data.resizing import fit
    from mobilenets.models.elastic import load_elastic

    predictor = DeadlinePredictor(made, 10_000)
    assert predictor.classes == [str(digit) for digit in range(10)]
    assert (predictor.runtime, predictor.threads) == ("litert", 1)
    assert all(isinstance(member, FrontMember) for member in predictor.members)
    times = [member.latency_ms for member in predictor.members]
    assert times == sorted(times)
    assert predictor.current == predictor.members[-1]
    best = predictor.current
    assert (best.width_multiplier, best.resolution, best.accuracy) == (0.25, 32, 0.6)
    network = load_elastic(made).extract((0.25, 32))
    for image in (picture(), picture(200, 90), picture(32, 32), picture(3, 5)):
        found = predictor(image)
        expected = np.asarray(network.predict_on_batch(fit(image, 32)[None]))[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [frame.index for frame in predictor.history] == [0, 1, 2, 3]
    assert all(frame.met and frame.ms > 0 and frame.seconds > 0 for frame in predictor.history)


def test_files_are_written_once_and_checked_before_each_use(run):
    DeadlinePredictor(run, 1000)
    files = sorted((run / "grid" / "front").rglob("*.tflite"))
    assert len(files) == 2
    written = {path: path.stat().st_mtime_ns for path in files}
    DeadlinePredictor(run, 1000)
    assert {path: path.stat().st_mtime_ns for path in files} == written
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"\1")
    DeadlinePredictor(run, 1000)
    assert [path for path in files if path.stat().st_mtime_ns != written[path]] == files[:1]
    (files[1].parent / "file.json").unlink()
    DeadlinePredictor(run, 1000)
    assert all(path.stat().st_mtime_ns != written[path] for path in files)
    assert not list((run / "grid" / "front").glob(".*"))
    # Where nothing can be kept, they are temporary.
    shutil.rmtree(run / "grid" / "front")
    (run / "grid" / "front").write_text("in the way")
    predictor = DeadlinePredictor(run, 1000)
    assert predictor(picture()).sum() == pytest.approx(1, abs=1e-3)


def test_it_goes_down_under_load_and_comes_back(made, monkeypatch):
    predictor = DeadlinePredictor(made, 60)
    costs, load, seconds = [2.0, 4.0, 8.0, 16.0], 1.0, 0.0
    # A clock that only networks move: whatever else the machine does, this is the same each time.
    monkeypatch.setattr(keeping, "time", SimpleNamespace(perf_counter=lambda: seconds))

    def slow(ms):
        def run(images):
            nonlocal seconds
            seconds += ms * load / 1e3
            return np.zeros((1, 10), np.float32)

        return run

    predictor._runners = [slow(ms) for ms in costs]
    predictor.controller = Controller(costs, 60)
    predictor.members = [predictor.members[0]] * 4
    for _ in range(10):
        predictor(picture())
    assert predictor.controller.current == 3
    load = 6.0
    for _ in range(12):
        predictor(picture())
    assert predictor.controller.current in (0, 1, 2)
    assert sum(not frame.met for frame in predictor.history) <= 2
    load = 1.0
    for _ in range(80):
        predictor(picture())
    assert predictor.controller.current == 3


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("a.jpg", "not str"),
        (np.zeros((4, 4, 3)), r"not float64 \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"not uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"not uint8 \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not uint8 \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not uint8 \(0, 4, 3\)"),
    ],
)
def test_what_is_no_frame_is_refused(made, image, words):
    predictor = DeadlinePredictor(made, 1000)
    with pytest.raises(UserError, match=words):
        predictor(image)
    assert not predictor.history


def test_what_cannot_be_is_one_line(run):
    def refused(words, *arguments, **options):
        with pytest.raises(UserError, match=words) as caught:
            DeadlinePredictor(run, *arguments, **options)
        assert "\n" not in str(caught.value)

    refused(r"no network holds 1e-06 ms here with LiteRT; the fastest, α .* px, float32, takes .* ms", 1e-6)
    for deadline in (0, -1, float("nan"), "10"):
        refused("the deadline must be a number of milliseconds above 0", deadline)
    refused("threads must be at least 1", 10, threads=0)
    refused("runtime openvino was not measured, but litert", 10, runtime="openvino")
    refused("precision int8 was not measured, but float32", 10, precision="int8")
    refused("nowhere/grid.json: is missing; measure with `mobilenets grid", 10, grid=run / "nowhere")
    path = run / "grid" / "grid.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"identity": known["identity"] | {"model": "0" * 64}}))
    refused("was measured with another model", 10)
    rows = [row | {"target": "../litert"} for row in known["rows"]]
    path.write_text(json.dumps(known | {"rows": rows}))
    refused("runtime of ours was not measured, but nothing", 10)
    path.unlink()
    refused("grid.json: is missing", 10)


def test_the_picture_is_drawn_or_removed(tmp_path):
    members = [FrontMember(0.25 * place, 96, "int8", "litert", 0.1 * place, float(place)) for place in range(1, 4)]
    used, late = simulate(lambda number: 1 + number // 50, 150, costs=[1.0, 3.0, 7.0])
    frames = [Frame(n, n / 30, int(used[n]), 40.0 if late[n] else 8.0, not late[n]) for n in range(150)]
    phases = [Phase(0, 75, "idle", 0.0), Phase(75, 150, "busy", 1.0)]
    path = tmp_path / "frames.png"
    assert draw_frames(frames, members, DEADLINE, path, phases) == path
    for few in (frames, [frame for frame in frames if frame.met]):
        draw_frames(few, members, DEADLINE, path, phases)
        with Image.open(path) as drawn:
            rows = np.asarray(drawn.convert("L")).min(axis=1)
        assert (rows < 250).mean() > 0.7  # both panels have their height
    assert draw_frames([], members, DEADLINE, path) is None
    assert not path.exists()
