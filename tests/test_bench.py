"""Files whose processes end while they are timed: the others are measured all the same."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mobilenets.architectures import V1
from mobilenets.deployment import latency
from mobilenets.errors import UserError
from mobilenets.selection import bench as benches

PRECISIONS = ("float32", "float16", "int8")


class FakeWorker:
    """A process with a file, which ends at one of its calls (``ends``) or when it is asked for its memory (-1)."""

    def __init__(self, path, ends=None):
        self.path, self.ends, self.calls, self.closed = path, ends, 0, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True

    def _alive(self):
        if self.closed or (self.ends is not None and 0 <= self.ends <= self.calls):
            raise UserError(f"{self.path}: the process that ran it ended by signal 9")

    def times(self, batch, seconds):
        self.calls += 1
        self._alive()
        return [float(1 + len(self.path.name))]

    def memory(self):
        if self.ends == -1:
            self.ends = 0
        self._alive()
        return {"peak": 2, "before": 1}


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """A bench of workers that end as ``ends`` says: lists of `FakeWorker`'s, by the name of the file."""
    ends, made = {}, []
    monkeypatch.setattr(latency, "PAUSE", 0)
    monkeypatch.setattr(benches, "classes_of", lambda model: 10)

    def write_quicker(writer, variant, place, threads):
        path = Path(place) / variant.precision
        path.write_bytes(b"file")
        return path, ""

    monkeypatch.setattr(benches, "write_quicker", write_quicker)
    monkeypatch.setattr(benches, "Writer", lambda *_: SimpleNamespace(write=lambda variant, place: place / "reference"))

    def load(self, path, variant):
        left = ends.get(path.name, [])
        made.append(FakeWorker(path, left.pop(0) if left else None))
        return made[-1]

    monkeypatch.setattr(benches.Bench, "_load", load)
    monkeypatch.setattr(benches.Bench, "_writer", lambda *_: None)
    monkeypatch.setattr(benches.Bench, "_evaluate", lambda *_: {"accuracy": 0.5})
    elastic = SimpleNamespace(network=V1, head=None, model=None)
    card, data = {"task": "classify"}, SimpleNamespace()
    made_of = benches.Bench(elastic, card, data, 1, "litert", rounds=2, seconds=0.01)
    return SimpleNamespace(bench=made_of, ends=ends, made=made)


def measure(told):
    """What was measured, and what was skipped and why, by precision."""
    wanted = benches.variants(["litert"], PRECISIONS)
    with told.bench:
        rows, skipped = told.bench.measure((0.25, 32), wanted)
    return [row["precision"] for row in rows], {entry["precision"]: entry["reason"] for entry in skipped}


@pytest.mark.parametrize("call", [2, 3, 5])  # the first is the trial, those after it fill caches or are timed
def test_a_file_whose_process_ends_is_skipped_and_the_others_are_measured(bench, call):
    bench.ends["float16"] = [call]
    rows, skipped = measure(bench)
    assert rows == ["float32", "int8"]
    assert list(skipped) == ["float16"]
    assert "float16: the process that ran it ended by signal 9" in skipped["float16"]


def test_several_processes_may_end(bench):
    bench.ends.update(float32=[2], int8=[4])
    rows, skipped = measure(bench)
    assert (rows, sorted(skipped)) == (["float16"], ["float32", "int8"])
    bench.made.clear()
    bench.ends.update(float32=[2], float16=[2], int8=[2])
    rows, skipped = measure(bench)
    assert (rows, sorted(skipped)) == ([], sorted(PRECISIONS))


def test_a_process_that_ends_before_it_tells_its_memory_is_skipped(bench):
    bench.ends["float16"] = [-1]
    rows, skipped = measure(bench)
    assert (rows, list(skipped)) == (["float32", "int8"], ["float16"])


def test_the_reference_is_loaded_again_with_more_room(bench):
    bench.ends["reference"] = [3]
    rows, skipped = measure(bench)
    assert rows == ["float32"]
    assert sorted(skipped) == ["float16", "int8"]
    assert "reference: the process that ran it ended" in skipped["int8"]
    assert [worker.path.name for worker in bench.made].count("reference") == 2
    # Where it never runs, nothing is measured, but nothing stops either.
    bench.ends["reference"] = [0] * 9
    rows, skipped = measure(bench)
    assert (rows, sorted(skipped)) == ([], sorted(PRECISIONS))
