"""Vectors are the same float32s as decimals and as bytes, and decimals are spelt as Go spells them."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.demo import gojson
from cacheproxy.wire import float32

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def packed(*numbers):
    """Little-endian float32."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


@given(st.lists(NUMBERS, min_size=1))
def test_unpacking_and_packing_gives_the_same_bits(numbers):
    """Whatever the numbers are."""
    data = packed(*numbers)
    assert float32.pack(float32.unpack(data)) == data


@given(st.lists(NUMBERS.filter(lambda number: number == 0 or abs(number) > 1.2e-38), min_size=1))
def test_numbers_are_spelt_as_go_spells_them(numbers):
    """The stand-in's own writer, made apart from this one, says the same."""
    expected = ",".join(map(gojson.float32_text, numbers))
    assert float32.unpack(packed(*numbers)) == f"[{expected}]"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (1e-5, "0.00001"),
        (9.99e-7, "9.99e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
    ],
)
def test_the_places_where_other_writers_differ(number, text):
    """Whole numbers have no point, and exponents begin at 1e21 and below 1e-6."""
    assert float32.unpack(packed(number)) == f"[{text}]"


@pytest.mark.parametrize("data", [b"", b"\0\0\0", packed(math.nan), packed(1.0, -math.inf)])
def test_what_is_no_vector_is_refused(data):
    """Rather than written as something JSON does not know."""
    assert not float32.is_finite(data)
    with pytest.raises(ValueError, match="not packed float32s"):
        float32.unpack(data)


@pytest.mark.parametrize("value", [None, {}, "0.5", [None], [True], ["0.5"], [[0.5]], [1e39]])
def test_what_is_no_list_of_float32s_is_not_packed(value):
    """A text from elsewhere is an error, not a vector."""
    with pytest.raises(ValueError, match=r"not a list of numbers|beyond float32"):
        float32.pack(json.dumps(value))


@pytest.mark.parametrize(
    ("numbers", "expected"), [((3.0, 4.0), 25.0), ((), 0.0), ((math.inf, 0.0), math.inf), ((0.6, -0.8), 1.0)]
)
def test_the_squared_length_is_that_of_the_packed_numbers(numbers: tuple[float, ...], expected: float) -> None:
    """Within float32's precision."""
    assert float32.norm_squared(struct.pack(f"<{len(numbers)}f", *numbers)) == pytest.approx(expected, rel=1e-6)


def test_a_vector_with_a_hole_in_it_has_no_length() -> None:
    """NaN, which compares as false with every bound."""
    assert math.isnan(float32.norm_squared(struct.pack("<2f", math.nan, 1.0)))
