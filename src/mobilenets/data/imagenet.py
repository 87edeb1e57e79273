"""The classes of ImageNet (ILSVRC 2012), which published weights tell apart."""

from importlib import resources


def imagenet_classes() -> dict[str, str]:
    """WordNet identifier -> name of the 1000 classes, in the order of the weights.

    A name is the first of WordNet's lemmas; the three that would stand twice are told apart.
    """
    text = resources.files("mobilenets.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())


def class_names(count: int) -> list[str]:
    """Names for the classes of published weights: ImageNet's where there are 1000, else numbers."""
    return list(imagenet_classes().values()) if count == 1000 else [f"class {index}" for index in range(count)]
