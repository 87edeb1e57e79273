"""Suppression against the plain greedy algorithm in a few lines of numpy."""

import numpy as np
import pytest

from mobilenets.evaluation.suppression import suppress


def outputs(locations=120, classes=4, seed=0, levels=None):
    """Random boxes in heaps, some reaching over the edges; scores in few ``levels`` have many ties."""
    draw = np.random.default_rng(seed)
    centres = draw.random((12, 2))[draw.integers(0, 12, locations)] + draw.normal(0, 0.03, (locations, 2))
    halves = draw.uniform(0.02, 0.3, (locations, 2))
    scores = draw.random((locations, classes)) ** 3
    if levels:
        scores = np.round(scores * levels) / levels
    return np.hstack([centres - halves, centres + halves, scores]).astype(np.float32)


def union_share(box, others):
    """Intersection over union of one box with others, float64."""
    box, others = np.asarray(box, np.float64), np.asarray(others, np.float64)
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.clip(sides, 0, None).prod(axis=1)
    return both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - both)


def greedy(raw, least=0.01, overlap=0.6, most=100, candidates=400):
    """The definition, class by class."""
    boxes = np.clip(raw[:, :4], 0, 1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    found = []
    for label, scores in enumerate(raw[:, 4:].T):
        order = [index for index in np.argsort(-scores, kind="stable") if scores[index] >= least and area[index] > 0]
        order = order[:candidates]
        while order:
            first, rest = order[0], order[1:]
            found.append((-scores[first], first, label))
            shares = union_share(boxes[first], boxes[rest])
            order = [index for index, share in zip(rest, shares, strict=True) if share <= overlap]
    found = sorted(found)[:most]
    rows = [[*boxes[index], -score, label] for score, index, label in found]
    return np.array(rows, np.float32).reshape(-1, 6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overlap": 0.3},
        {"overlap": 0.9, "most": 1000},
        {"overlap": 0.05, "most": 60},
        {"least": 0.5},
        {"most": 1},
        {"candidates": 5},
        {"candidates": 1, "most": 3},
    ],
)
def test_equals_the_plain_algorithm(seed, options):
    raw = outputs(seed=seed)
    np.testing.assert_array_equal(suppress(raw, **options), greedy(raw, **options))


@pytest.mark.parametrize("overlap", [0.1, 0.5])
def test_equals_the_plain_algorithm_where_scores_tie(overlap):
    raw = outputs(400, 3, seed=9, levels=4)
    for most in (20, 1000):
        options = {"overlap": overlap, "most": most}
        np.testing.assert_array_equal(suppress(raw, **options), greedy(raw, **options))


def test_equals_the_plain_algorithm_with_many_classes():
    raw = outputs(300, 80, seed=3)
    np.testing.assert_array_equal(suppress(raw), greedy(raw))
    # Few survive: more and more candidates have to be tried.
    np.testing.assert_array_equal(suppress(raw, overlap=0.0, most=700), greedy(raw, overlap=0.0, most=700))


def test_a_case_by_hand():
    raw = np.array(
        [
            [0.0, 0.0, 0.5, 0.5, 0.9, 0.0],
            [0.0, 0.0, 0.5, 0.4, 0.8, 0.7],  # 0.8 of the first: the same object in the first class only
            [0.0, 0.0, 0.5, 0.25, 0.6, 0.0],  # 0.5 of the first: another object
            [0.6, 0.6, 0.7, 0.7, 0.0005, 0.0],  # too unsure
        ],
        np.float32,
    )
    expected = [
        [0.0, 0.0, 0.5, 0.5, 0.9, 0],
        [0.0, 0.0, 0.5, 0.4, 0.7, 1],
        [0.0, 0.0, 0.5, 0.25, 0.6, 0],
    ]
    found = suppress(raw)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_both_limits_are_inclusive():
    raw = np.array([[0, 0, 1, 1, 0.5], [0, 0, 1, 0.5, 0.25]], np.float32)  # overlap 0.5
    assert len(suppress(raw, least=0.25, overlap=0.5)) == 2
    assert len(suppress(raw, least=0.25, overlap=0.49)) == 1
    assert len(suppress(raw, least=0.26, overlap=0.5)) == 1


def test_small_boxes_keep_their_precision():
    size = np.float32(1 / 4096)
    raw = np.array([[0.5, 0.5, 0.5 + size, 0.5 + size, 0.9], [0.5 + size, 0.5, 0.5 + 2 * size, 0.5 + size, 0.8]])
    assert len(suppress(raw)) == 2
    raw[1, [0, 2]] -= size * 0.9
    assert len(suppress(raw)) == 1


def test_boxes_are_clipped_and_those_outside_are_gone():
    raw = np.array(
        [
            [-0.5, 0.25, 0.5, 1.5, 0.9],
            [1.1, 0.1, 1.4, 0.3, 0.8],  # outside
            [0.6, 0.1, 0.6, 0.9, 0.7],  # no width
            [0.9, 0.9, 0.7, 0.95, 0.6],  # turned round
        ],
        np.float32,
    )
    np.testing.assert_array_equal(suppress(raw), np.array([[0, 0.25, 0.5, 1, 0.9, 0]], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 4, 6])
def test_what_is_no_number_is_dropped(bad, column):
    raw = outputs(40, 3, seed=5)
    broken = raw.copy()
    broken[7, column] = bad
    np.testing.assert_array_equal(suppress(broken), greedy(np.delete(raw, 7, axis=0)))


def test_opposite_infinities_are_dropped_as_well():
    raw = outputs(10, 2, seed=6)
    raw[:, 0], raw[:, 2] = -np.inf, np.inf
    assert suppress(raw).shape == (0, 6)


def test_nothing_found():
    for raw in (np.zeros((0, 7), np.float32), np.zeros((5, 7), np.float32), outputs()[:, :7] * 0):
        found = suppress(raw)
        assert found.shape == (0, 6)
        assert found.dtype == np.float32
    assert suppress(outputs(), most=0).shape == (0, 6)


def test_the_input_is_left_alone():
    raw = outputs()
    raw[3, 1] = np.nan
    before = raw.copy()
    suppress(raw)
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 3, 7)])
def test_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="locations, 4 \\+ classes"):
        suppress(np.zeros(shape, np.float32))


def test_equals_torchvision():
    try:
        import torch
        from torchvision.ops import batched_nms
    except (ImportError, RuntimeError):  # built for another torch
        pytest.skip("torchvision does not work here")
    raw = outputs(200, 5, seed=8)
    boxes = torch.tensor(np.repeat(np.clip(raw[:, :4], 0, 1), 5, axis=0)).double()
    scores = torch.tensor(raw[:, 4:].ravel())
    labels = torch.arange(5).repeat(200)
    kept = batched_nms(boxes[scores >= 0.01], scores[scores >= 0.01], labels[scores >= 0.01], 0.6)[:100]
    found = suppress(raw)
    np.testing.assert_array_equal(found[:, 4], scores[scores >= 0.01][kept].numpy())
    np.testing.assert_array_equal(found[:, 5], labels[scores >= 0.01][kept].numpy())
