"""``mobilenets demo``: the whole way on the embedded digits, from images to a measured file that fits a budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobilenets.files import writing

SAMPLES = 8  # pictures of the evaluation set that are written out and classified
ALPHAS, SIZES = (0.125, 0.25, 0.5), (24, 32)
EPOCHS = 16


def run(
    out: Path,
    quiet: bool = False,
    command: str = "",
    say: Callable[[str], None] | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Trains a MobileNet V1 on handwritten digits for six widths and resolutions, and takes the best that fits.

    The budget is 300 kB, and 50 ms that any machine keeps.

    Args:
        out: the model directory to write; an earlier model in it is replaced.
        quiet: print no progress.
        command: as typed, for the card.
        say: called with a line about every stage that begins.
        report: called with what is measured, how much is done, and how much there is.

    Returns:
        ``keras`` and ``file`` (metrics), ``artifact`` (the card's entry), ``chosen`` (the card's), ``predictions``
        (each with the ``truth``), ``report`` and ``seconds``.
    """
    import time

    from mobilenets.architectures import V1
    from mobilenets.data import load
    from mobilenets.deployment.predict import predict
    from mobilenets.selection.budget import Budget
    from mobilenets.selection.budgeted import train_to_budget
    from mobilenets.training.settings import Settings

    began = time.perf_counter()
    data = load("digits")
    # 8 pixels leave too little for four halvings; enlarged to 32, the same strokes cross several of them.
    settings = Settings(epochs=EPOCHS, batch_size=32, warmup_epochs=2)
    card = train_to_budget(
        data,
        out,
        V1,
        ALPHAS,
        SIZES,
        Budget(latency_ms=50, size_kb=300),
        settings,
        overwrite=True,
        quiet=quiet,
        command=command,
        say=say,
        report=report,
    )
    (artifact,) = card["artifacts"]
    files = _write_samples(data, out / "samples")
    found = predict(out, list(files), runtime="litert", top=1)
    predictions = [
        {"file": entry["file"], "truth": files[Path(entry["file"])], **entry["classes"][0]} for entry in found["images"]
    ]
    return {
        "keras": card["metrics"],
        "file": artifact["metrics"],
        "artifact": artifact,
        "chosen": card["chosen"],
        "predictions": predictions,
        "report": str(out / "report.html"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _write_samples(data, directory: Path) -> dict[Path, str]:
    """Writes images of the evaluation set as PNG files; returns their classes by path."""
    from PIL import Image

    files = {}
    for index in range(SAMPLES):
        path = directory / f"digit_{index}.png"
        with writing(path) as temporary:
            Image.fromarray(data.val.images[index]).save(temporary)
        files[path] = data.classes[data.val.labels[index]]
    return files
