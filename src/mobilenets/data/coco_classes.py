"""The classes of COCO, which published detectors tell apart."""

from importlib import resources


def coco_classes() -> dict[int, str]:
    """Label -> name of the 80 classes: ``category_id`` and ``name`` of the annotations of COCO 2014 and 2017.

    Lin et al. 2014, arXiv 1405.0312. Of the 91 categories planned, which labels 1 to 91 were given to, eleven have no
    object annotated, so labels are missing; the last is 90.
    """
    text = resources.files("mobilenets.data").joinpath("coco_classes.tsv").read_text(encoding="utf-8")
    return {int(label): name for label, name in (line.split("\t") for line in text.splitlines())}


def label_names(count: int) -> dict[int, str]:
    """Names for the labels 1 to ``count`` of published weights: COCO's where there are 90, else numbers.

    Labels that COCO never gave have none.
    """
    return coco_classes() if count == 90 else {label: f"class {label}" for label in range(1, count + 1)}
