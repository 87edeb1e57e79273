"""Metrics, pictures and the report of a trained model."""

from mobilenets.evaluation.classification import confident_mistakes, confusions, interval, measure, rows
from mobilenets.evaluation.pictures import draw_confusion, draw_curves, draw_mistakes
from mobilenets.evaluation.report import render

__all__ = [
    "confident_mistakes",
    "confusions",
    "draw_confusion",
    "draw_curves",
    "draw_mistakes",
    "interval",
    "measure",
    "render",
    "rows",
]
