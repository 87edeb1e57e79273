"""A segmenter's graph that gives classes instead of probabilities, for files whose users need no more."""

from dataclasses import replace

from mobilenets.errors import UserError
from mobilenets.models.operations import Graph, Op

CLASSES = "classes"  # what is computed last
MOST = 256  # classes that a byte tells apart


def class_map(graph: Graph) -> Graph:
    """A segmenter's graph that ends with the likeliest class of each place, uint8 (height, width).

    Raises:
        UserError: the graph is none of a segmenter, or has too many classes.
    """
    output = graph.output
    if output.kind != "softmax" or len(output.shape) != 3:
        raise UserError("--class-map is for segmenters; this network gives no probabilities of pixels")
    if output.shape[2] > MOST:
        raise UserError(f"--class-map: a byte tells {MOST} classes apart, and there are {output.shape[2]}")
    # What is likeliest is so before the softmax, too.
    return replace(graph, ops=(*graph.ops[:-1], Op(CLASSES, "argmax", output.inputs, output.shape[:2])))
