"""The first and the last token of a row are found by the mask alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_triton.export.layers import first_state, last_state

pytestmark = pytest.mark.export

# Any number but 0 counts as attended, as in transformers.
ROWS = st.integers(1, 9).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0, 0, 1, 1, 1, 3]), min_size=width, max_size=width).filter(any),
        min_size=1,
        max_size=5,
    )
)


@settings(max_examples=100)
@given(rows=ROWS)
def test_wherever_the_padding_is(rows: list[list[int]]) -> None:
    mask = torch.tensor(rows)
    states = torch.arange(mask.numel()).reshape(*mask.shape, 1).float()
    attended = [np.flatnonzero(row) for row in rows]
    width = mask.shape[1]
    assert first_state(states, mask)[:, 0].tolist() == [i * width + places[0] for i, places in enumerate(attended)]
    assert last_state(states, mask)[:, 0].tolist() == [i * width + places[-1] for i, places in enumerate(attended)]


def test_a_row_without_tokens_gives_a_position_of_its_own() -> None:
    states, mask = torch.ones(2, 3, 4), torch.tensor([[0, 0, 0], [1, 1, 0]])
    assert torch.isfinite(first_state(states, mask)).all()
    assert torch.isfinite(last_state(states, mask)).all()
