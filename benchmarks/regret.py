"""How much accuracy is lost by choosing from one measured grid, and how often a budget is broken.

    # twenty minutes on one core; the result in results/regret.json
    taskset -c 1 python benchmarks/regret.py --run runs/elastic

--run is what `mobilenets train` made of several widths and resolutions (here `mobilenets train fashion-mnist --net v1
--alpha 0.125,0.25,0.375,0.5 --size 16,20,24,28 --epochs 4 --batch-size 128`). Its grid is measured as `mobilenets grid`
does, once, and then everything again and longer: the truth. Random budgets limit the latency, every second one the size
too, every third the memory, and half of them name a runtime. For each, `regret` is the accuracy of the best file that
keeps the budget by the truth, less that of the file chosen from the grid; `broken` counts files that take more than
1.05 times a limit by the truth.

``chosen`` is what `mobilenets choose` does, which measures the file once more before it takes it; ``grid`` what the
grid says without that; and ``macs`` the usual way: the int8 file of the network with the most multiply-accumulates
whose latency, in proportion to them, keeps the limit, where that of the widest network was measured.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.card import environment, now
from mobilenets.errors import UserError
from mobilenets.files import write_json
from mobilenets.selection.budget import SLACK, Budget, pick
from mobilenets.selection.choose import settle
from mobilenets.selection.grid import Plan, grid
from mobilenets.selection.table import Row, key_of

RESULT = Path(__file__).parent / "results" / "regret.json"
RUNTIMES = ("litert", "onnxruntime", "openvino")


def budgets(truth: list[Row], count: int) -> list[Budget]:
    """Random budgets that something keeps, evenly spread over the logarithm of what files take."""
    rng, found = np.random.default_rng(0), []

    def between(column: str, scale: float) -> float:
        values = np.log([row[column] / scale for row in truth])
        return float(np.exp(rng.uniform(values.min(), values.max())))

    while len(found) < count:
        number = len(found)
        budget = Budget(
            latency_ms=between("latency_ms", 1),
            size_kb=between("file_bytes", 1e3) if number % 2 else None,
            memory_mb=between("memory_bytes", 1e6) if number % 3 == 0 else None,
            runtime=str(rng.choice(RUNTIMES)) if number % 4 > 1 else None,
        )
        try:
            pick(truth, budget)
        except UserError:
            continue
        found.append(budget)
    return found


def by_macs(rows: list[Row], budget: Budget) -> Row | None:
    """The usual choice; None where it finds nothing."""
    runtime = budget.runtime or "litert"
    mine = [row for row in rows if row["runtime"] == runtime and row["precision"] == "int8"]
    widest = max(mine, key=lambda row: row["macs"])
    fitting = [
        row
        for row in mine
        if row["macs"] / widest["macs"] * widest["latency_ms"] <= budget.latency_ms
        and (budget.size_kb is None or row["file_bytes"] <= 1e3 * budget.size_kb)
    ]
    return max(fitting, key=lambda row: row["macs"], default=None)


def judged(row: Row | None, truth: dict[Any, Row], budget: Budget) -> dict[str, Any]:
    """What a choice is worth by the truth."""
    if row is None:
        return {"found": False}
    true = truth[key_of(row)]
    best = pick(list(truth.values()), budget).winner
    shares = [share for share in budget.shares(true).values() if share is not None]
    return {
        "found": True,
        "file": key_of(row),
        "most_of_a_limit": round(max(shares), 4),
        "broken": not budget.keeps(true, SLACK),
        "regret_points": round(100 * (best["accuracy"] - true["accuracy"]), 3),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many found nothing or broke the budget, and the regret of the others."""
    found = [row for row in rows if row["found"]]
    kept = [row["regret_points"] for row in found if not row["broken"]]
    return {
        "budgets": len(rows),
        "nothing_found": len(rows) - len(found),
        "broken": sum(row["broken"] for row in found),
        "most_of_a_limit": max(row["most_of_a_limit"] for row in found),
        "mean_regret_points": round(float(np.mean(kept)), 3),
        "largest_regret_points": round(max(kept), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--budgets", type=int, default=40)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()

    def say(what: str, done: int, total: int) -> None:
        print(what, done, total, flush=True)

    known = grid(options.run, Plan(), report=say)
    longer = grid(options.run, Plan(rounds=9, seconds=0.4), options.run / "truth", report=say)
    truth = {key_of(row): row for row in longer["rows"]}
    ways: dict[str, list[dict[str, Any]]] = {"chosen": [], "grid": [], "macs": []}
    asked = budgets(longer["rows"], options.budgets)
    for number, budget in enumerate(asked):
        say("budget", number, len(asked))
        for way, rows in ways.items():
            try:
                if way == "macs":
                    row = by_macs(known["rows"], budget)
                else:
                    row = (
                        settle(options.run, known, budget, []) if way == "chosen" else pick(known["rows"], budget)
                    ).winner
            except UserError:
                row = None
            rows.append(judged(row, truth, budget))
    ratios = [truth[key_of(row)]["latency_ms"] / row["latency_ms"] for row in known["rows"] if key_of(row) in truth]
    result = {
        "benchmark": "regret",
        "summary": {way: summary(rows) for way, rows in ways.items()},
        "second_over_first_latency": {
            f"percentile_{share}": round(float(np.percentile(ratios, share)), 3) for share in (5, 50, 95)
        },
        "files": len(truth),
        "images": known["images"],
        "threads": known["rows"][0]["threads"],
        "budgets": [budget.limits | {"runtime": budget.runtime} for budget in asked],
        "choices": ways,
        "measured": now(),
        "environment": environment(),
    }
    write_json(options.result, result)
    print(result["summary"], result["second_over_first_latency"])


if __name__ == "__main__":
    main()
