"""Numbers and names as people read them."""

import pytest

from mobilenets.evaluation import formats

S = formats.SPACE


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(0.98334), f"98.3{S}%"),
        (formats.percent(0.98334, 10_000), f"98.33{S}%"),
        (formats.percent(1.0), f"100.0{S}%"),
        (formats.percent(0.9996), f"99.96{S}%"),
        (formats.rate(0.5), "50.0"),
        (formats.points(-0.0028), "−0.3"),
        (formats.points(0.0028), "+0.3"),
        (formats.points(-0.0001), "0.0"),
        (formats.points(-0.0001, 10_000), "−0.01"),
        (formats.count(4_231_976), f"4{S}231{S}976"),
        (formats.short_count(4_231_976), f"4.23{S}M"),
        (formats.short_count(999_600), f"1.00{S}M"),
        (formats.short_count(12), "12"),
        (formats.size(16_928_000), f"16.9{S}MB"),
        (formats.size(0), f"0{S}B"),
        (formats.milliseconds(2.0512), f"2.05{S}ms"),
        (formats.milliseconds(102.3), f"102{S}ms"),
        (formats.duration(4.2), f"4.20{S}s"),
        (formats.duration(75), f"1{S}min 15{S}s"),
        (formats.duration(8000), f"2{S}h 13{S}min"),
        (formats.number(0.0512), "0.0512"),
        (formats.number(1.2e-6), "1.2·10⁻⁶"),
        (formats.number(-0.5), "−0.5"),
        (formats.number(0), "0"),
        (formats.percent(None), "–"),
        (formats.milliseconds(float("nan")), "–"),
        (formats.size("12"), "–"),
        (formats.count(True), "–"),
    ],
)
def test_numbers(written, expected):
    assert written == expected


def test_long_names_lose_their_middle():
    assert formats.shorten("cat", 16) == "cat"
    short = formats.shorten("red_squirrel_in_winter", 14)
    assert short == "red_squ…winter"
    assert formats.width(formats.shorten("一艘在海上航行的大船", 10)) <= 10


def test_names_become_drawable_and_encodable():
    assert formats.plain("a\nb\x07c\udce9") == "a b\ufffdc\ufffd"
    formats.plain("\udce9").encode("utf-8")
    assert formats.plain("日本 $x$ <b>") == "日本 $x$ <b>"
