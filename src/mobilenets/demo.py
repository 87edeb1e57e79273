"""``mobilenets demo``: the main job on the embedded digits, from images to a measured file."""

from pathlib import Path
from typing import Any

from mobilenets.files import writing

SAMPLES = 8  # pictures of the evaluation set that are written out and classified


def run(out: Path, quiet: bool = False, command: str = "") -> dict[str, Any]:
    """Trains a MobileNet V1 on handwritten digits, exports it, and runs the exported file.

    Args:
        out: the model directory to write; an earlier model in it is replaced.
        quiet: print no progress.
        command: as typed, for the card.

    Returns:
        ``keras`` and ``file`` (metrics), ``artifact`` (the card's entry), ``predictions`` (each with the
        ``truth``), ``report`` and ``seconds``.
    """
    import time

    from mobilenets.architectures import V1
    from mobilenets.data import load
    from mobilenets.deployment.export import export
    from mobilenets.deployment.predict import predict
    from mobilenets.training.classify import train
    from mobilenets.training.settings import Settings

    began = time.perf_counter()
    data = load("digits")
    # 8 pixels leave too little for four halvings; enlarged to 32, the same strokes cross several of them.
    settings = Settings(epochs=20, batch_size=32, warmup_epochs=2)
    card = train(data, out, V1, 0.25, 32, settings, overwrite=True, quiet=quiet, command=command)
    (artifact,) = export(out)
    files = _write_samples(data, out / "samples")
    found = predict(out, list(files), runtime="litert", top=1)
    predictions = [
        {"file": entry["file"], "truth": files[Path(entry["file"])], **entry["classes"][0]} for entry in found["images"]
    ]
    return {
        "keras": card["metrics"],
        "file": artifact["metrics"],
        "artifact": artifact,
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
