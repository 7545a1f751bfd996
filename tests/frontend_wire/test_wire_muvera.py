from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract.recorded import arrays, muvera_cases
from numpy.typing import NDArray
from sie_frontend.outputs import muvera, smve
from sie_frontend.outputs.muvera import MuveraConfig
from sie_frontend.outputs.smve import SmveConfig

CASES = ("paper_small", "ams8_nofinal", "center_ams8", "identity_nofinal_norm", "final_ignored")


def _tokens(count: int, dim: int, seed: int = 7) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


@pytest.mark.parametrize("side", ["doc", "query"])
@pytest.mark.parametrize("case", CASES)
def test_muvera_reference_vectors(case: str, side: str) -> None:
    configs = muvera_cases()
    assert sorted(configs) == sorted(CASES)
    golden = arrays()
    config = MuveraConfig.from_mapping(configs[case])
    vector = muvera.encode_tokens(golden["tokens"], config, is_query=side == "query")
    expected = golden[f"{case}__{side}"]
    assert (vector.dtype.str, vector.shape) == ("<f4", expected.shape)
    assert vector.size == config.size(golden["tokens"].shape[1])
    np.testing.assert_allclose(vector, expected, rtol=1e-6, atol=1e-6)


def _muvera_by_the_letter(tokens: NDArray[np.float32], config: MuveraConfig, *, is_query: bool) -> NDArray[np.float32]:
    """The contract's steps, one token and one partition at a time."""
    count, dim = tokens.shape
    blocks = []
    for repetition in range(config.num_repetitions):
        seed = config.seed + repetition
        planes = np.random.default_rng(seed).normal(0, 1, (dim, config.num_simhash_projections)).astype(np.float32)
        width = config.projection_dim or dim
        mixer = np.eye(dim, dtype=np.float32)
        if config.projection_dim:
            rng = np.random.default_rng(seed)
            columns = rng.integers(0, width, size=(dim,))
            signs = rng.choice(np.array([-1, 1], dtype=np.float32), size=dim)
            mixer = np.zeros((dim, width), dtype=np.float32)
            for row, (column, sign) in enumerate(zip(columns, signs, strict=True)):
                mixer[row, column] = sign
        block = np.zeros((1 << config.num_simhash_projections, width))
        members = np.zeros(len(block))
        for token in range(count):
            index = 0
            crossings: list[float] = (tokens[token] @ planes).tolist()
            for bit in (crossing > 0 for crossing in crossings):
                index = (index << 1) + (bit ^ (index & 1))
            block[index] += tokens[token] @ mixer
            members[index] += 1
        blocks.append((block if is_query else block / np.maximum(members, 1)[:, None]).ravel())
    vector = np.concatenate(blocks)
    if config.final_projection_dim is not None and config.final_projection_dim < vector.size:
        rng = np.random.default_rng(config.seed)
        buckets = rng.integers(0, config.final_projection_dim, size=vector.size)
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), size=vector.size)
        sketch = np.zeros(config.final_projection_dim)
        for bucket, sign, value in zip(buckets, signs, vector, strict=True):
            sketch[bucket] += sign * value
        vector = sketch
    return vector.astype(np.float32)


@pytest.mark.parametrize("is_query", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        MuveraConfig(num_repetitions=5, num_simhash_projections=4, projection_dim=6, final_projection_dim=None),
        MuveraConfig(num_repetitions=3, num_simhash_projections=3, seed=9, final_projection_dim=100),
    ],
)
@pytest.mark.parametrize("group_floats", [1, 1 << 10, 1 << 22])
def test_muvera_by_the_letter(
    monkeypatch: pytest.MonkeyPatch, config: MuveraConfig, is_query: bool, group_floats: int
) -> None:
    monkeypatch.setattr(muvera, "_GROUP_FLOATS", group_floats)
    tokens = _tokens(33, 24)
    vector = muvera.encode_tokens(tokens, config, is_query=is_query)
    expected = _muvera_by_the_letter(tokens, config, is_query=is_query)
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "dim", "size"),
    [
        (MuveraConfig(), 128, 10240),
        (MuveraConfig(projection_dim=8, final_projection_dim=None), 96, 20480),
        (MuveraConfig(num_repetitions=96, projection_dim=8, final_projection_dim=None), 128, 49152),
    ],
)
def test_muvera_sizes(config: MuveraConfig, dim: int, size: int) -> None:
    assert config.size(dim) == size
    assert muvera.encode_tokens(_tokens(3, dim), config, is_query=True).shape == (size,)
    none = muvera.encode_tokens(_tokens(0, dim), config, is_query=False)
    assert none.shape == (size,)
    assert not none.any()


def test_muvera_normalizes_without_dividing_by_zero() -> None:
    config = MuveraConfig(num_repetitions=2, normalize=True)
    assert np.linalg.norm(muvera.encode_tokens(_tokens(4, 16), config, is_query=True)) == pytest.approx(1)
    assert not muvera.encode_tokens(np.zeros((2, 16), dtype=np.float32), config, is_query=True).any()


def _smve_by_the_letter(tokens: NDArray[np.float32], config: SmveConfig, *, is_query: bool) -> dict[int, float]:
    weights: dict[int, float] = {}
    for repetition in range(config.num_repetitions):
        rng = np.random.default_rng(config.seed + repetition)
        anchors = rng.standard_normal((tokens.shape[1], config.width), dtype=np.float32)
        anchors = anchors / np.linalg.norm(anchors, axis=0)
        votes: dict[int, list[float]] = {}
        for token in tokens:
            projections = token @ anchors
            for anchor in np.argsort(-projections)[: config.k]:
                votes.setdefault(int(anchor), []).append(float(projections[anchor]))
        for anchor, values in votes.items():
            divisor = 1 if is_query else len(values)
            weights[anchor + repetition * config.width] = sum(values) / divisor
    if config.max_nonzeros is not None:
        kept = sorted(weights, key=lambda anchor: -abs(weights[anchor]))[: config.max_nonzeros]
        weights = {anchor: weights[anchor] for anchor in kept}
    return weights


@pytest.mark.parametrize("is_query", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        SmveConfig(width=256, k=8),
        SmveConfig(width=64, k=4, num_repetitions=3, seed=1),
        SmveConfig(width=64, k=8, num_repetitions=2, max_nonzeros=17),
    ],
)
@pytest.mark.parametrize("group_floats", [1, 1 << 23])
def test_smve_by_the_letter(
    monkeypatch: pytest.MonkeyPatch, config: SmveConfig, is_query: bool, group_floats: int
) -> None:
    monkeypatch.setattr(smve, "_GROUP_FLOATS", group_floats)
    tokens = _tokens(20, 12)
    indices, values = smve.encode_tokens(tokens, config, is_query=is_query)
    expected = _smve_by_the_letter(tokens, config, is_query=is_query)
    assert (indices.dtype.str, values.dtype.str) == ("<i4", "<f4")
    assert indices.tolist() == sorted(expected)
    np.testing.assert_allclose(values, [expected[index] for index in sorted(expected)], rtol=1e-5)


def test_smve_of_no_tokens_is_empty() -> None:
    indices, values = smve.encode_tokens(_tokens(0, 12), SmveConfig(width=64), is_query=False)
    assert (indices.shape, values.shape) == ((0,), (0,))


def test_smve_with_fewer_anchors_than_k_takes_them_all() -> None:
    indices, _ = smve.encode_tokens(_tokens(1, 12), SmveConfig(width=4, k=32), is_query=True)
    assert indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("config", [MuveraConfig, SmveConfig])
def test_unknown_keys_are_refused(config: Any) -> None:
    assert config.from_mapping(None) == config()
    assert config.from_mapping({"seed": 1}).seed == 1
    with pytest.raises(ValueError, match="no key \\['sead'\\]"):
        config.from_mapping({"sead": 1})
