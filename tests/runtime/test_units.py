"""Quantities are told in the units a person would choose."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.runtime import console as units


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 3, "0"),
        (2.302585, 3, "2.3"),
        (2.302585, 4, "2.303"),
        (0.18181818, 4, "0.1818"),
        (0.00004, 3, "4e-05"),
        (999.4, 3, "999"),
        (999.5, 3, "1,000"),
        (9999.6, 4, "10,000"),
        (-12345.6, 3, "-12,346"),
        (999_999.4, 3, "999,999"),
        (999_999.5, 3, "1e+06"),
        (7.234567e28, 4, "7.235e+28"),
        (math.nan, 3, "nan"),
        (-math.inf, 4, "-inf"),
    ],
)
def test_a_number_has_so_many_significant_digits_and_an_exponent_where_large(value, digits, text):
    assert units.format_number(value, digits) == text


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (units.format_time, 0.0, "0 s"),
        (units.format_time, 119.0, "119 s"),
        (units.format_time, 120.0, "2 min"),
        (units.format_time, 12276.0, "3.41 h"),
        (units.format_time, 200000.0, "2.31 days"),
        (units.format_bytes, 0, "0 B"),
        (units.format_bytes, 999, "999 B"),
        (units.format_bytes, 12_500_000, "12.5 MB"),
        (units.format_bytes, 3_200_000_000, "3.2 GB"),
        (units.format_energy, 0.0616, "61.6 mJ"),
        (units.format_energy, 1250.0, "1.25 kJ"),
    ],
)
def test_text(form, value, text):
    assert form(value) == text


@given(
    st.floats(1e-3, 1e38),
    st.sampled_from([units.format_time, units.format_bytes, units.format_energy]),
)
def test_text_gives_the_value_back_to_three_digits_in_few_characters(value, form):
    text = form(value)
    number, unit = re.fullmatch(r"([\d,.]+(?:e\+\d+)?) (\w+)", text).groups()
    assert len(number) <= len("1.23e+38")
    sizes = dict(units.TIME_UNITS + units.BYTE_UNITS + units.ENERGY_UNITS)
    assert float(number.replace(",", "")) * sizes[unit] == pytest.approx(value, rel=0.0051)
