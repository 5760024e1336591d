"""Plots put numbers where they belong."""

from __future__ import annotations

import math

import pytest
from reportlab.graphics.shapes import Circle, Drawing, Line, Polygon, Rect, String

from audit.cards import blocks, plots, theme


def shapes(drawing: Drawing, kind: type) -> list:
    return [s for s in drawing.contents if isinstance(s, kind)]


def texts(drawing: Drawing) -> list[str]:
    return [s.text for s in shapes(drawing, String)]


def one_row(**row: object) -> Drawing:
    return plots.interval_plot(blocks.intervals("t", [{"label": "m", "value": 0.5, **row}]), 500)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 7), (0.0812, 0.0815), (1e-9, 2e-9), (1e6, 9e6), (-1e300, 1e300)]
)
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    ticks = plots.Scale(low, high, 0, 100).ticks()
    assert 3 <= len(ticks) <= 11
    assert all(low - 1e-12 * abs(low) <= t <= high + 1e-12 * abs(high) for t in ticks)
    assert ticks == sorted(set(ticks))


def test_a_scale_maps_ends_to_ends_and_keeps_the_rest_inside() -> None:
    scale = plots.Scale(2, 4, 100, 200)
    assert [scale.at(v) for v in (2, 3, 4, -9, 99)] == [100, 150, 200, 100, 200]


def test_the_acceptable_region_lies_on_its_side_of_the_limit() -> None:
    for side, left_of_limit in (("LIMIT_SIDE_AT_MOST", True), ("LIMIT_SIDE_AT_LEAST", False)):
        drawing = one_row(lower=0.4, upper=0.6, limit=0.7, side=side)
        ground, region = shapes(drawing, Rect)
        assert region.fillColor == theme.REGION
        assert (region.x == ground.x) is left_of_limit
        assert math.isclose(region.x + region.width, ground.x + ground.width) is not left_of_limit
        limit = next(s for s in shapes(drawing, Line) if s.strokeColor == theme.INK)
        assert math.isclose(limit.x1, region.x + region.width if left_of_limit else region.x)


@pytest.mark.parametrize(
    ("outcome", "colour"),
    [
        ("PASS", theme.GOOD),
        ("FAIL", theme.BAD),
        ("INCONCLUSIVE", theme.DOUBT),
        ("", theme.ACCENT),
        ("GAP", theme.ACCENT),
    ],
)
def test_colour_is_what_the_policy_said_and_not_what_the_plot_thinks(outcome: str, colour: object) -> None:
    drawing = one_row(lower=0.4, upper=0.6, limit=0.45, side="LIMIT_SIDE_AT_MOST", outcome=outcome)
    assert shapes(drawing, Circle)[0].fillColor == colour


def test_estimate_and_control_stand_in_order() -> None:
    drawing = one_row(lower=0.4, upper=0.6, control=0.45)
    diamond = shapes(drawing, Polygon)[0]
    assert diamond.points[0] < shapes(drawing, Circle)[0].cx


def test_a_one_sided_interval_has_one_cap() -> None:
    def caps(drawing: Drawing) -> int:
        return sum(1 for s in shapes(drawing, Line) if s.strokeColor == theme.ACCENT and s.x1 == s.x2)

    assert caps(one_row(lower=0.4, upper=0.6)) == 2
    assert caps(one_row(lower=0.4)) == 1


def test_a_number_that_is_none_is_a_gap() -> None:
    drawing = plots.interval_plot(blocks.intervals("t", [{"label": "m", "value": math.nan}]), 500)
    assert "GAP: not a finite number" in texts(drawing)
    assert not shapes(drawing, Circle)


def test_rows_of_one_quantity_share_one_scale() -> None:
    rows = [{"label": "a", "value": 0.2}, {"label": "b", "value": 0.8}]
    shared = plots.interval_plot(blocks.intervals("t", rows, axis="rate"), 500)
    first, second = shapes(shared, Circle)
    assert first.cx < second.cx
    assert "rate" in texts(shared)
    own = plots.interval_plot(blocks.intervals("t", rows), 500)
    assert len({round(c.cx, 6) for c in shapes(own, Circle)}) == 1


def test_a_strip_counts_all_values_and_draws_a_bounded_number() -> None:
    block = blocks.strip("t", "nats", {"many": [i / 7 for i in range(5000)], "none": [math.inf]})
    drawing = plots.strip_plot(block, 500)
    assert len(shapes(drawing, Circle)) == plots.MAX_DOTS
    assert any("n 5000" in t for t in texts(drawing))
    assert "GAP" in texts(drawing)


def test_a_curve_without_points_is_a_gap() -> None:
    assert texts(plots.curve_plot(blocks.curve("t", ("x", "y"), {"a": []}), 500)) == ["GAP: no points"]


def test_labels_stay_inside_their_room() -> None:
    from reportlab.pdfbase.pdfmetrics import stringWidth

    drawing = plots.interval_plot(blocks.intervals("t", [{"label": "very long name " * 40, "value": 1}]), 500)
    for s in shapes(drawing, String):
        assert s.x + stringWidth(s.text, s.fontName, s.fontSize) <= 501
