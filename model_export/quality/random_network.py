"""Makes random networks that behave like trained ones, for tests and benchmarks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from training.qin import QIN, Batch, QINSizes, Standardised

EMBEDDING_SCALE = 0.3
ITEMS, USERS, ROWS = 256, 64, 512  # of the batch for the statistics
LOGIT_SPREAD, LOGIT_MEAN = 1.2, -1.0  # of the logits: probabilities spread over (0, 1)


def random_network(schema: FeatureSchema, sizes: QINSizes | None = None, seed: int = 0) -> QIN:
    """Make a network in eval mode with every weight, statistic and slope non-trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = QIN(schema, sizes).eval()
        with torch.no_grad():
            _randomise(network)
            batch = _random_batch(network)
            _settle_items(network, batch)
            _settle_statistics(network, batch)
            _spread_logits(network, batch)
    return network


def ill_conditioned(
    schema: FeatureSchema, sizes: QINSizes | None = None, seed: int = 0, *, spread: float = 1.0
) -> QIN:
    """Make a network whose statistics are not those of its inputs, so that its activations grow
    and cancel: with ``spread`` 1 those of random initialisation, with less nearer to (0, 1)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = QIN(schema, sizes).eval()
        for module in network.modules():
            match module:
                case nn.Embedding():
                    nn.init.normal_(module.weight, std=0.5)
                    module.weight[0].zero_()
                case nn.BatchNorm1d(
                    running_mean=Tensor() as mean, running_var=Tensor() as variance
                ):
                    nn.init.normal_(mean, std=0.2 * spread)
                    nn.init.uniform_(variance, 1 - 0.7 * spread, 1 + 1.3 * spread)
                    nn.init.uniform_(module.weight, 1 - 0.5 * spread, 1 + 0.5 * spread)
        scale = network(_random_batch(network)).abs().median()
        network.fc.weight.div_(scale)
        network.fc.bias.div_(scale)
    return network


def calm(network: QIN, scale: float, seed: int = 0) -> None:
    """Scale every batch norm and recompute statistics: shorter tails of logits."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.weight.mul_(scale)
        batch = _random_batch(network)
        _settle_statistics(network, batch)
        _spread_logits(network, batch)


def _randomise(network: QIN) -> None:
    for module in network.modules():
        match module:
            case Standardised():
                nn.init.normal_(module.mean, std=3.0)
                nn.init.uniform_(module.deviation, 0.5, 2.0)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=EMBEDDING_SCALE)
                module.weight[0].zero_()
            case nn.Linear():
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.1)
            case nn.BatchNorm1d():
                nn.init.uniform_(module.weight, 0.1, 0.4)
                nn.init.normal_(module.bias, std=0.1)
            case nn.PReLU():
                nn.init.uniform_(module.weight, 0.05, 0.4)


def _settle_items(network: QIN, batch: Batch) -> None:
    """Scale dense features and the pooled interest like the embeddings."""
    for feature in network.schema.item:
        if isinstance(feature, Dense):
            projection = network.item_vector.embedding[feature.name]
            assert isinstance(projection, nn.Linear)
            projection.weight.mul_(EMBEDDING_SCALE / projection(batch.items[feature.name]).std())
    for feature in network.schema.user:
        if isinstance(feature, Dense):
            projection = network.user_vector.embedding[feature.name]
            assert isinstance(projection, nn.Linear)
            projection.weight.mul_(EMBEDDING_SCALE / projection(batch.users[feature.name]).std())
    vectors = network.item_vector(batch.items)
    target = vectors[batch.target]
    interest = network.attention(target, vectors, batch.history) - target
    network.attention.W_o.weight.mul_(EMBEDDING_SCALE / interest.std())


def _settle_statistics(network: QIN, batch: Batch) -> None:
    """Set each batch norm's statistics to those of its inputs, as training would."""

    def measure(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(inputs[0].mean(0))
        norm.running_var.copy_(inputs[0].var(0))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    network(batch)
    for hook in hooks:
        hook.remove()


def _spread_logits(network: QIN, batch: Batch) -> None:
    logits = network(batch)
    scale = LOGIT_SPREAD / logits.std()
    network.fc.weight.mul_(scale)
    network.fc.bias.copy_((network.fc.bias - logits.mean()) * scale + LOGIT_MEAN)


def _random_batch(network: QIN) -> Batch:
    schema = network.schema
    batch = Batch(
        items=_random_records(schema.item, ITEMS + 1),
        target=torch.randint(1, ITEMS + 1, (ROWS,)),
        history=torch.randint(0, ITEMS + 1, (ROWS, schema.history_length)),
        context=torch.stack([torch.randint(f.vocabulary, (ROWS,)) for f in schema.context], 1)
        if schema.context
        else torch.zeros(ROWS, 0, dtype=torch.int64),
        label=torch.zeros(ROWS),
    )
    request = {}
    for feature in schema.request:
        number = network.request_vector.embedding[feature.name]
        if isinstance(number, Standardised):
            request[feature.name] = number.mean + number.deviation * torch.randn(ROWS)
        elif isinstance(feature, Categorical):
            request[feature.name] = torch.randint(feature.vocabulary, (ROWS,))
    if not schema.user:
        return replace(batch, request=request)
    users = _random_records(schema.user, USERS + 1)
    return replace(batch, users=users, user=torch.randint(0, USERS + 1, (ROWS,)), request=request)


def _random_records(
    features: tuple[Categorical | CategoricalList | Dense, ...], count: int
) -> dict[str, Tensor]:
    """Records of items or users by feature, the first one all zero."""
    found = {}
    for feature in features:
        match feature:
            case Categorical():
                found[feature.name] = torch.randint(feature.vocabulary, (count,))
            case CategoricalList():
                indices = torch.randint(feature.vocabulary, (count, feature.slots))
                found[feature.name] = indices * (torch.rand(indices.shape) < 0.7)
            case Dense():
                found[feature.name] = torch.randn(count, feature.size)
        found[feature.name][0] = 0
    return found
