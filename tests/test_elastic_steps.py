"""A step of training several widths and resolutions at once."""

from dataclasses import replace

import numpy as np
import pytest

from mobilenets.architectures import V1
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.elastic import SubNetwork
from mobilenets.training.elastic import Sandwich, Widest, turns
from test_elastic import MEMBERS, all_values, pixels


def test_every_network_takes_part_and_a_step_depends_on_its_place_alone():
    table = replace(V1, blocks=V1.blocks[:2])
    widest = Widest(logits_model(classifier(table, (16, 16, 3), 3, 0.5)))
    members = [(alpha, size) for alpha in (0.25, 0.375, 0.5) for size in (12, 16)]
    sandwich = Sandwich(widest, table, members, seed=0)
    drawn = [sandwich._drawn((epoch, step)) for epoch in range(2) for step in range(40)]
    assert drawn == [sandwich._drawn((epoch, step)) for epoch in range(2) for step in range(40)]
    assert {member for step in drawn for member in step} == set(members[:-1])
    assert all(len(set(step)) == 3 for step in drawn)  # none twice, which would count twice
    often = [[alpha for alpha, _ in step].count(0.25) for step in drawn]
    # The narrowest always and, but where two of the widest were wanted, which there are not, once.
    assert min(often) == 1
    assert np.mean(often) < 1.5


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([(0.25, 12), (0.25, 16)], {(0.25, 12)}),
        ([(0.25, 16), (0.5, 16)], {(0.25, 16)}),
        ([(0.25, 16), (0.375, 16), (0.5, 16)], {(0.25, 16), (0.375, 16)}),
        ([(0.25, 8), (0.25, 12), (0.25, 16), (0.25, 20)], {(0.25, 8), (0.25, 12), (0.25, 16)}),
        ([(0.25, 12), (0.25, 16), (0.5, 12), (0.5, 16)], {(0.25, 12), (0.25, 16), (0.5, 12)}),
    ],
)
def test_lists_of_one_width_or_one_resolution_are_drawn_from_too(members, expected):
    widest = Widest(logits_model(classifier(replace(V1, blocks=V1.blocks[:2]), (16, 16, 3), 3, 0.5)))
    sandwich = Sandwich(widest, V1, members, seed=0)
    drawn = [sandwich._drawn((0, step)) for step in range(40)]
    assert {member for step in drawn for member in step} == expected
    # None twice, and none that is not there.
    assert all(len(step) == len(set(step)) == min(3, len(expected)) for step in drawn)
    assert turns(members) == 1 + len(drawn[0])


@pytest.mark.backend
def test_a_step_of_which_some_gradients_were_no_numbers_is_dropped_whole():
    table = replace(V1, blocks=V1.blocks[:2])
    widest = Widest(logits_model(classifier(table, (16, 16, 3), 3, 0.5)))
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    optimizer.build(widest.trainable_variables)
    widest.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    sandwich = Sandwich(widest, table, MEMBERS, seed=0)
    images, told = pixels(4, 16), np.eye(3, dtype=np.float32)[np.arange(4) % 3]
    for step, broken in enumerate((False, True, False)):
        before = all_values(widest)
        sandwich(np.float32(images) * (np.nan if broken else 1), told, None, (0, step))
        moved = max(np.abs(new - old).max() for old, new in zip(before, all_values(widest), strict=True))
        assert (moved > 0) != broken
    # One of four passes: the next step begins anew.
    sandwich._widest.train_on_batch(images, told)
    assert int(keras.ops.convert_to_numpy(inner._iterations)) == 9
    before = all_values(widest)
    sandwich._align()
    assert int(keras.ops.convert_to_numpy(inner._iterations)) == 12
    assert not any(np.any(keras.ops.convert_to_numpy(each)) for each in inner._accumulated_gradients)
    for old, new in zip(before, all_values(widest), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends trace otherwise, or not at all")
def test_a_width_is_traced_once_for_all_sizes(monkeypatch):
    traced = []
    step = SubNetwork.train_step

    def counted(self, data):
        traced.append(self.name)
        return step(self, data)

    monkeypatch.setattr(SubNetwork, "train_step", counted)
    table = replace(V1, blocks=V1.blocks[:2])
    widest = Widest(logits_model(classifier(table, (20, 20, 3), 3, 0.5)))
    members = [(alpha, size) for alpha in (0.25, 0.5) for size in (8, 12, 16, 20)]
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=turns(members))
    widest.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    sandwich = Sandwich(widest, table, members, seed=0)
    for place in range(8):
        sandwich(pixels(4, 20), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], None, (0, place))
    assert len({member[1] for place in range(8) for member in sandwich._drawn((0, place))}) == 4
    assert len(traced) == 2
