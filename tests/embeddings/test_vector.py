from __future__ import annotations

import numpy as np
import pytest

from embeddings.errors import EmbedError
from embeddings.vector import unit_vectors


def test_rows_come_out_as_float32_of_unit_length():
    """Whatever numbers an engine gives, callers get unit rows in C order."""
    vectors = unit_vectors([[3, 4], [0, -2]], rows=2, dims=2)

    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, -1]], rtol=1e-6)
    assert np.float32 == vectors.dtype
    assert vectors.flags.c_contiguous


def test_no_texts_give_an_empty_matrix_of_the_right_width():
    """Callers may concatenate it."""
    assert unit_vectors([], rows=0, dims=384).shape == (0, 384)


@pytest.mark.parametrize(
    "raw",
    [
        [[1.0, 2.0, 3.0]],
        [1.0, 2.0],
        [[1.0, 2.0], [3.0, 4.0]],
        [],
        [[np.nan, 1.0]],
        [[np.inf, 1.0]],
        [[1e300, 1.0]],
        [[3e38, 3e38]],
        [[0.0, 0.0]],
        [["a", "b"]],
        [[None, 1.0]],
        [[1.0], [1.0, 2.0]],
        {"a": 1},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_anything_but_one_finite_direction_a_text_is_an_error(raw):
    """Wrong shape, NaN, infinity, zero and non-numbers never become a vector."""
    with pytest.raises(EmbedError):
        unit_vectors(raw, rows=1, dims=2)
