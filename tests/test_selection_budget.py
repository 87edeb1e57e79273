"""What a budget picks, from rows alone."""

import numpy as np
import pytest

from mobilenets.errors import UserError
from mobilenets.selection.budget import LIMITS, Budget, parse, pick


def row(
    alpha=0.5, size=96, accuracy=0.9, latency=1.0, kb=100.0, mb=10.0, runtime="litert", precision="float32", **more
):
    """A row of a grid."""
    return {
        "width_multiplier": alpha,
        "resolution": size,
        "precision": precision,
        "target": {"litert": "litert", "onnxruntime": "onnx"}[runtime],
        "runtime": runtime,
        "accuracy": accuracy,
        "macro_precision": accuracy,
        "macro_recall": accuracy,
        "macro_f1": accuracy,
        "latency_ms": latency,
        "file_bytes": kb * 1e3,
        "memory_bytes": None if mb is None else mb * 1e6,
        "macs": 1,
        "params": 1,
        "threads": 1,
        **more,
    }


def random_rows(rng, count=40):
    return [
        row(
            alpha=float(rng.choice([0.25, 0.5, 1])),
            size=int(rng.choice([96, 128])),
            accuracy=round(float(rng.uniform(0.5, 1)), 2),
            latency=float(rng.uniform(0.1, 10)),
            kb=float(rng.uniform(10, 1000)),
            mb=None if rng.random() < 0.1 else float(rng.uniform(1, 50)),
        )
        for _ in range(count)
    ]


def test_it_is_the_best_of_those_that_fit():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        rows = random_rows(rng)
        budget = Budget(latency_ms=float(rng.uniform(0.1, 5)), size_kb=float(rng.uniform(10, 800)), memory_mb=30)
        fitting = [
            one
            for one in rows
            if one["latency_ms"] <= budget.latency_ms
            and one["file_bytes"] <= 1e3 * budget.size_kb
            and one["memory_bytes"] is not None
            and one["memory_bytes"] <= 30e6
        ]
        if not fitting:
            with pytest.raises(UserError, match="no file fits the budget"):
                pick(rows, budget)
            continue
        found += 1
        choice = pick(rows, budget)
        assert choice.winner in fitting
        assert choice.winner["accuracy"] == max(one["accuracy"] for one in fitting)
        equal = [one for one in fitting if one["accuracy"] == choice.winner["accuracy"]]
        assert choice.winner["latency_ms"] == min(one["latency_ms"] for one in equal)
        assert (choice.fitting, choice.considered) == (len(fitting), len(rows))
        assert choice.shares["latency_ms"] == pytest.approx(choice.winner["latency_ms"] / budget.latency_ms)
        places = [(one["width_multiplier"], one["resolution"]) for one in (choice.winner, *choice.runners_up)]
        assert len(set(places)) == len(places)
        for step in choice.steps:
            # With as much of it, the row fits and is better; with less, nothing that is better does.
            assert step["row"]["accuracy"] > choice.winner["accuracy"]
            more = {name: value for name, value in budget.limits.items() if name != step["limit"]}
            assert pick(rows, Budget(**more, **{step["limit"]: step["needs"]})).winner is step["row"]
            less = pick(rows, Budget(**more, **{step["limit"]: step["needs"] * 0.9999})).winner
            assert less["accuracy"] == choice.winner["accuracy"]
    assert found > 50


def test_the_metric_decides():
    rows = [row(accuracy=0.9, macro_f1=0.5), row(accuracy=0.8, macro_f1=0.6, alpha=0.25)]
    assert pick(rows, Budget(metric="accuracy")).winner is rows[0]
    assert pick(rows, Budget(metric="f1")).winner is rows[1]


def test_runtime_and_precision_narrow_the_choice():
    rows = [row(accuracy=0.9), row(runtime="onnxruntime", accuracy=0.8), row(precision="int8", accuracy=0.7)]
    assert pick(rows, Budget()).winner is rows[0]
    assert pick(rows, Budget(runtime="onnxruntime")).winner is rows[1]
    assert pick(rows, Budget(precision="int8")).winner is rows[2]
    with pytest.raises(
        UserError, match="no file for onnxruntime and int8 was measured, but litert float32, litert int8"
    ):
        pick(rows, Budget(runtime="onnxruntime", precision="int8"))


def test_a_step_that_another_limit_forbids_is_none():
    rows = [row(accuracy=0.8, latency=1, kb=100), row(accuracy=0.9, latency=2, kb=300, alpha=1.0)]
    choice = pick(rows, Budget(latency_ms=1.5, size_kb=200))
    assert choice.steps == []
    (step,) = pick(rows, Budget(latency_ms=1.5, size_kb=400)).steps
    assert (step["limit"], step["needs"], step["row"]) == ("latency_ms", 2, rows[1])


def test_what_is_impossible_is_named_with_the_least_there_is():
    rows = [row(latency=2, kb=50, alpha=0.25), row(latency=1, kb=300)]
    with pytest.raises(UserError) as caught:
        pick(rows, Budget(latency_ms=0.5, size_kb=400))
    assert "impossible alone: latency 0.5 ms (the least is 1 ms, α 0.5, 96 px" in str(caught.value)
    assert "size" not in str(caught.value).split("The nearest")[0]
    with pytest.raises(UserError) as caught:
        pick(rows, Budget(latency_ms=1.9, size_kb=100))
    assert "each limit is possible alone, but not all together" in str(caught.value)
    assert "The nearest is α 0.25, 96 px, float32, LiteRT: latency 2 ms, size 50 kB" in str(caught.value)


def test_what_nobody_measured_does_not_fit():
    rows = [row(mb=None, accuracy=0.99), row(mb=5, accuracy=0.5)]
    assert pick(rows, Budget(memory_mb=10)).winner is rows[1]
    with pytest.raises(UserError, match="--memory-mb: nobody measured the memory"):
        pick(rows[:1], Budget(memory_mb=10))


def test_a_budget_in_one_word():
    assert parse("latency-ms=5, size_kb=500,memory-mb=2e1", metric="f1") == Budget(5, 500, 20, "f1")
    assert set(parse("latency-ms=5").limits) < set(LIMITS)


@pytest.mark.parametrize("text", ["", "5", "latency=5", "latency-ms=", "latency-ms=5,latency-ms=6", "size-kb=x"])
def test_what_is_no_budget_is_one_line(text):
    with pytest.raises(UserError, match="--budget must"):
        parse(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"latency_ms": 0}, "--latency-ms must be a number above 0"),
        ({"size_kb": float("nan")}, "--size-kb must be a number above 0"),
        ({"memory_mb": float("inf")}, "--memory-mb must be a number above 0"),
        ({"metric": "speed"}, "--metric must be one of accuracy, precision, recall, f1"),
        ({"runtime": "tflite"}, "--runtime must be one of litert"),
        ({"precision": "int4"}, "--precision must be one of float32"),
    ],
)
def test_what_is_out_of_range_is_one_line(words, message):
    with pytest.raises(UserError, match=message):
        Budget(**words)
