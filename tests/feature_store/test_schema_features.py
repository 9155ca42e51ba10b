"""User, request and shared features in the schema: sizes, stored bytes, what a store serves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from feature_store.schema import FeatureSchema, SchemaError
from training.published_qin import Positions, PublishedQIN
from training.qin import QIN, Batch, QINSizes

LEVEL = "{name: level, kind: categorical, vocabulary: 11, width: 4}"
ITEM = "{name: id, kind: categorical, vocabulary: 50, width: 8}"
PLAIN = f"name: shop\nhistory_length: 5\nitem: [{ITEM}]\nidentity: id\ncontext: [{LEVEL}]\n"
LEVELS = f"""
name: shop
history_length: 5
user:
  - {{name: who, kind: categorical, vocabulary: 30, width: 6}}
  - {{name: likes, kind: categorical_list, vocabulary: 9, slots: 3, width: 2}}
  - {{name: taste, kind: dense, size: 4, width: 3}}
user_identity: who
request:
  - {{name: device, kind: categorical, vocabulary: 3, width: 2}}
  - {{name: hour, kind: numeric, width: 2}}
item: [{LEVEL}, {ITEM}]
identity: id
context: [{LEVEL}]
"""


def schema_of(text: str) -> FeatureSchema:
    return FeatureSchema.from_yaml(text, source="test")


def test_of_the_documented_schema_the_documented_keys_alone_may_be_left_out() -> None:
    text = (Path(__file__).parents[2] / "docs/training.md").read_text("utf-8")
    (documented,) = re.findall(r"^```yaml\n(name: .*?)^```$", text, re.MULTILINE | re.DOTALL)
    whole = yaml.safe_load(documented)
    assert schema_of(documented).model_dump(mode="json").keys() == whole.keys()

    def needed(part: dict[str, Any], key: str) -> bool:
        value = part.pop(key)
        try:
            FeatureSchema.model_validate(whole)
        except ValueError:
            return True
        finally:
            part[key] = value
        return False

    roles = ("item", "user", "request", "context")
    needed_keys = {key for key in list(whole) if needed(whole, key)}
    assert needed_keys == {"name", "history_length", "item", "user"}  # user: of user_identity
    for role in roles:
        for feature in whole[role]:
            assert all(needed(feature, key) for key in list(feature)), feature
    for key in ("identity", "user_identity", *roles[1:]):
        whole.pop(key)
        assert schema_of(yaml.safe_dump(whole))


def test_a_shared_feature_is_stored_once_and_counted_in_both_blocks() -> None:
    schema = schema_of(LEVELS)
    assert schema.shared == {"level"}
    assert schema.item_dtype.names == ("level", "id")
    assert schema.user_dtype.names == ("who", "likes", "taste")
    assert schema.item_vector_width == 12
    assert schema.context_widths == (6, 2, 3, 2, 2, 4)
    assert schema.network_width == 19 + 2 * 12


def test_a_copy_with_other_features_has_their_record_types() -> None:
    schema = schema_of(LEVELS)
    assert schema.item_dtype.names == ("level", "id")  # read before the copy is made
    assert schema.user_dtype.names == ("who", "likes", "taste")
    copied = schema.model_copy(update={"user": schema.user[:1], "item": schema.item[1:]})
    assert copied.item_dtype.names == ("id", "level")
    assert copied.user_dtype.names == ("who",)
    assert schema.model_copy(deep=True).item_dtype == schema.item_dtype


def test_a_schema_without_user_and_request_features_is_written_as_before() -> None:
    text = schema_of(PLAIN).to_yaml()
    assert not any(word in text for word in ("user", "request"))
    assert schema_of(schema_of(LEVELS).to_yaml()) == schema_of(LEVELS)


def test_the_authors_level_variant_has_its_sizes() -> None:
    table: dict[str, Any] = {"kind": "categorical", "width": 128}
    levels = [{**table, "name": f"{what}_level", "vocabulary": 11} for what in ("likes", "views")]
    tags = {**table, "name": "item_tags", "vocabulary": 11_740, "slots": 5}
    schema = FeatureSchema.model_validate(
        {
            "name": "levels",
            "history_length": 64,
            "user": [{**table, "name": "user_id", "vocabulary": 1_000_001}],
            "item": [
                *levels,
                {**table, "name": "item_id", "vocabulary": 91_718},
                {**tags, "kind": "categorical_list"},
                {"name": "item_emb_d128", "kind": "dense", "size": 128, "width": 128},
            ],
            "context": levels,
        }
    )
    assert (schema.item_vector_width, schema.context_width) == (640, 384)
    with torch.device("meta"):
        network = QIN(schema, QINSizes(attention_width=1280, rows=3, output_bias=True))
    assert sum(p.numel() for p in network.parameters()) == 177_801_093


def test_a_store_serves_models_whose_features_it_has_in_any_role_and_order() -> None:
    plain, levels = schema_of(PLAIN), schema_of(LEVELS)
    assert not plain.unserved_by(levels)
    assert levels.unserved_by(plain) == [
        "user.who: not in the store",
        "user.likes: not in the store",
        "user.taste: not in the store",
    ]
    other = schema_of(LEVELS.replace("size: 4", "size: 5"))
    assert other.unserved_by(levels) == [
        "user.taste: dense of 5 float32 against the store's dense of 4 float32"
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("name: device", "name: who"), "feature named more than once: who"),
        (("user_identity: who", "user_identity: taste"), "'taste' is not a categorical user"),
        (("item: [{name: level, kind: categorical, vocabulary: 11",
          "item: [{name: level, kind: categorical, vocabulary: 12"), "more than once: level"),
    ],
)  # fmt: skip
def test_conflicting_features_are_refused(change: tuple[str, str], fault: str) -> None:
    with pytest.raises(SchemaError, match=fault):
        schema_of(LEVELS.replace(*change))


def test_the_network_reads_user_and_request_features_as_published() -> None:
    torch.manual_seed(3)
    schema = schema_of(LEVELS)
    network = QIN(schema, QINSizes(attention_width=8, layers=2, rows=2, output_bias=True)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for module in network.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.data[0] = 0  # padding
    network.eval()
    network.request_vector.embedding["hour"].mean.fill_(12.0)
    network.request_vector.embedding["hour"].deviation.fill_(3.0)
    item = {"level": torch.randint(11, (7,)), "id": torch.randint(50, (7,))}
    batch = Batch(
        items=item,
        target=torch.randint(1, 7, (20,)),
        history=torch.randint(0, 7, (20, 5)),
        context=torch.randint(11, (20, 1)),
        label=torch.zeros(20),
        users={
            "who": torch.randint(30, (4,)),
            "likes": torch.randint(9, (4, 3)),
            "taste": torch.randn(4, 4, dtype=torch.float64),
        },
        user=torch.randint(4, (20,)),
        request={
            "device": torch.randint(3, (20,)),
            "hour": torch.where(torch.arange(20) < 5, torch.nan, torch.rand(20) * 24).double(),
        },
    )
    published = PublishedQIN(network)(Positions.of(batch))
    assert torch.allclose(network(batch), published, rtol=0, atol=1e-9)
    missing = batch.request | {"hour": torch.full((20,), 12.0, dtype=torch.float64)}
    as_mean = network(replace(batch, request=missing))
    assert torch.equal(network(batch)[:5], as_mean[:5])
    assert not torch.equal(network(batch)[5:], as_mean[5:])


def test_a_level_of_the_item_and_of_the_context_is_one_table() -> None:
    network = QIN(schema_of(LEVELS))
    assert network.context["level"] is network.item_vector.embedding["level"]
