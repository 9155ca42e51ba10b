"""The reassociated network against the published formulation, on the same parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from training import operations
from training.bench.steps import in_float64, without_dropout
from training.operations import Dropout, interest, linear
from training.published_qin import Positions, PublishedQIN
from training.qin import QIN, Batch, QINSizes

widths = st.integers(1, 6)


@st.composite
def schemas(draw: st.DrawFn) -> FeatureSchema:
    """One to four item features of any kind, none to three context features."""
    item: list[Any] = []
    for i, kind in enumerate(draw(st.lists(st.sampled_from("clv"), min_size=1, max_size=4))):
        name, width = f"feature_{i}", draw(widths)
        match kind:
            case "c":
                item.append(Categorical(name=name, vocabulary=9, width=width))
            case "l":
                slots = draw(st.integers(1, 4))
                item.append(
                    CategoricalList(
                        name=name, kind="categorical_list", vocabulary=7, slots=slots, width=width
                    )
                )
            case _:
                size = draw(widths)
                item.append(Dense(name=name, kind="dense", size=size, width=width))
    context = [
        Categorical(name=f"context_{i}", vocabulary=5, width=draw(widths))
        for i in range(draw(st.integers(0, 3)))
    ]
    length = draw(st.integers(1, 9))
    return FeatureSchema(name="any", history_length=length, item=item, context=context)


@st.composite
def networks(draw: st.DrawFn) -> QIN:
    sizes = QINSizes(
        attention_width=draw(st.integers(1, 8)),
        layers=draw(st.integers(1, 3)),
        rows=draw(st.integers(1, 4)),
    )
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return awake(QIN(draw(schemas()), sizes))


def awake(network: QIN) -> QIN:
    """Float64, every parameter as large as a trained one; padding rows zero."""
    with torch.no_grad():
        for module in network.double().modules():
            for parameter in module.parameters(recurse=False):
                parameter.normal_(std=0.5)
            if isinstance(module, nn.Embedding):
                module.weight[0].zero_()
    return network


def random_rows(schema: FeatureSchema, rows: int = 6, items: int = 5) -> Batch:
    """Padding at any place of the histories, lists and dense vectors; item 0 all zero."""
    columns: dict[str, Tensor] = {}
    for feature in schema.item:
        match feature:
            case Categorical():
                value = torch.randint(0, feature.vocabulary, (items,))
            case CategoricalList():
                value = torch.randint(0, feature.vocabulary, (items, feature.slots))
                value[torch.rand(value.shape) < 0.3] = 0
            case Dense():
                value = torch.randn(items, feature.size, dtype=torch.float64)
        value[0] = 0
        columns[feature.name] = value
    return Batch(
        items=columns,
        target=torch.randint(0, items, (rows,)),
        history=torch.randint(0, items, (rows, schema.history_length)),
        context=torch.randint(0, 5, (rows, len(schema.context))),
        label=torch.randint(0, 2, (rows,)).double(),
    )


def gradients(network: QIN, logit: Tensor, label: Tensor) -> dict[str, Tensor]:
    parameters = dict(network.named_parameters())
    loss = F.binary_cross_entropy_with_logits(logit, label)
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


@settings(deadline=None, max_examples=60)
@given(network=networks(), training=st.booleans())
def test_logits_and_gradients_are_the_published_ones(network: QIN, training: bool) -> None:
    rows = random_rows(network.schema)
    network = without_dropout(network.train(training))
    expected = PublishedQIN(network)(Positions.of(rows))
    found = network(rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted = gradients(network, expected, rows.label)
    for name, gradient in gradients(network, found, rows.label).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


@settings(deadline=None, max_examples=20)
@given(network=networks())
def test_padding_rows_of_the_tables_never_learn(network: QIN) -> None:
    rows = random_rows(network.schema)
    tables = {n for n, m in network.named_modules() if isinstance(m, nn.Embedding)}
    for name, gradient in gradients(network, network(rows), rows.label).items():
        if name.removesuffix(".weight") in tables:
            assert torch.equal(gradient[0], torch.zeros_like(gradient[0])), name


@settings(deadline=None, max_examples=30)
@given(network=networks())
def test_padding_contributes_exactly_nothing(network: QIN) -> None:
    rows = random_rows(network.schema)
    padded = replace(rows, history=F.pad(rows.history, (3, 2)))
    emptied = replace(rows, history=torch.zeros_like(rows.history))
    shorter = replace(rows, history=rows.history[:, :0])
    network.eval()
    torch.testing.assert_close(network(padded), network(rows), rtol=1e-13, atol=1e-13)
    assert torch.equal(network(emptied), network(shorter))


def test_what_the_padding_item_holds_does_not_matter_to_a_history() -> None:
    torch.manual_seed(0)
    query, vectors = torch.randn(4, 3), torch.randn(5, 3)
    index = torch.tensor([[0, 1, 2], [0, 0, 0], [3, 0, 4], [2, 2, 2]])
    before = interest(query, vectors, index)
    vectors[0] = 1e6
    assert torch.equal(interest(query, vectors, index), before)
    assert torch.equal(before[1], torch.zeros(3))


def test_history_gradient_never_reaches_the_padding_item() -> None:
    vectors = torch.randn(5, 3, requires_grad=True)
    interest(torch.randn(2, 3), vectors, torch.tensor([[0, 1], [0, 3]])).sum().backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad[0], torch.zeros(3))


@pytest.mark.parametrize("block_bytes", [1, 200, 2**20])
def test_interest_has_the_formulas_gradient_in_blocks_of_any_size(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BLOCK_BYTES", block_bytes)
    torch.manual_seed(1)
    query = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 6, (7, 4))
    history = vectors[index]
    score = torch.einsum("bd,bld->bl", query, history)
    plain = torch.einsum("bl,bld->bd", F.relu(score) * (index != 0), history)
    torch.testing.assert_close(interest(query, vectors, index), plain)
    assert torch.autograd.gradcheck(lambda q, v: interest(q, v, index), (query, vectors))


def test_linear_by_onednn_is_the_layer_and_its_gradients() -> None:
    torch.manual_seed(2)
    layer, x = nn.Linear(33, 70), torch.randn(19, 33, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    upstream = torch.randn(19, 70)
    expected, found = layer(x), linear(x, layer)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, inputs, upstream)
    for ours, theirs in zip(torch.autograd.grad(found, inputs, upstream), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_with_p_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(3)
    n = 1_000_001  # odd: two masks come out of every 64 bits drawn
    out = Dropout(p).train()(torch.ones(n))
    dropped = float((out == 0).float().mean())
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(out[out != 0].unique(), torch.tensor([1 / (1 - p)]))


def test_dropout_draws_each_element_for_itself() -> None:
    torch.manual_seed(4)
    dropped = (Dropout(0.5).train()(torch.ones(4000, 256)) == 0).double()
    between = torch.corrcoef(dropped.T) - torch.eye(256)
    assert between.abs().max() < 6 / 4000**0.5


def test_dropout_has_the_gradient_of_its_own_mask_and_rests_in_eval() -> None:
    torch.manual_seed(5)
    x = torch.randn(50, 20, requires_grad=True)
    out = Dropout(0.3).train()(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, out != 0)
    assert Dropout(0.3).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_rows_are_dropped_one_by_one_before_their_sum() -> None:
    """With z = x ⊙ Σ_r h_r and unit rows, z counts the rows kept: binomial, not all or nothing."""
    torch.manual_seed(6)
    schema = FeatureSchema(
        name="one", history_length=1, item=[Categorical(name="i", vocabulary=3, width=64)]
    )
    network = QIN(schema, QINSizes(rows=4, layers=1, dropout=0.25, attention_width=4)).train()
    layer: Any = network.layers[0]
    nn.init.zeros_(layer.linear.weight)
    nn.init.ones_(layer.linear.bias)
    seen: list[Tensor] = []
    layer.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    layer(torch.ones(2000, schema.network_width))
    kept = (seen[0] * 0.75).round()
    share = torch.stack([(kept == k).float().mean() for k in range(5)])
    expected = torch.tensor([0.25**4, 12 * 0.25**4, 54 * 0.25**4, 108 * 0.25**4, 81 * 0.25**4])
    torch.testing.assert_close(share, expected, atol=0.005, rtol=0)


def test_the_paper_s_sizes_have_the_official_number_of_parameters() -> None:
    with torch.device("meta"):
        network = QIN(FeatureSchema.microlens())
    assert sum(p.numel() for p in network.parameters()) == 31_244_293


def test_in_float64_touches_numbers_only() -> None:
    torch.manual_seed(7)
    schema = FeatureSchema.microlens()
    rows = in_float64(random_rows(schema))
    assert rows.items["item_emb_d128"].dtype == rows.label.dtype == torch.float64
    assert rows.items["item_tags"].dtype == torch.int64
