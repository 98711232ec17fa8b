"""Muon against torch's own on matrices, against SGD elsewhere; its orthogonal matrices against the singular values."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.muon import Muon, orthogonalised
from lightning_modules.optim import OptimizerError, make_optimizer, parameter_groups, refuse_tables


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (16, 16)])
@pytest.mark.parametrize("scale", [1e-4, 100.0])
def test_orthogonalised_keeps_the_singular_vectors_and_evens_out_the_values(shape: tuple[int, int], scale: float) -> None:
    torch.manual_seed(0)
    matrix = scale * torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.t() @ orthogonalised(matrix) @ right.t()  # diagonal where the singular vectors are the same
    even = values > 0.01 * values.norm()
    assert even.sum() >= len(values) - 1
    assert found.diag()[even].min() > 0.6
    assert found.diag().max() < 1.3
    assert (found - found.diag().diag()).abs().max() < 0.03


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_matrices_move_as_with_torchs_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.6, "weight_decay": 0.1}
    optimizers = Muon([{"params": [ours], "orthogonal": True}], **settings), torch.optim.Muon([theirs], **settings)
    for gradient in gradients:
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    # Theirs averages gradients where ours adds them up, and both then take off the scale, in bfloat16.
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
    assert (ours - start).norm() > 0.3


def test_filters_move_as_the_matrix_with_a_row_for_each() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    filters = nn.Parameter(start.clone().to(memory_format=torch.channels_last))
    matrix = nn.Parameter(start.flatten(1).clone())
    for parameter, its_gradient in ((filters, gradient), (matrix, gradient.flatten(1))):
        parameter.grad = its_gradient.clone()
        Muon([{"params": [parameter], "orthogonal": True}], lr=0.1).step()
    assert torch.equal(filters.flatten(1), matrix)


def test_the_rest_moves_as_with_sgd() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(5, 3), torch.randn(4, 5, 3)
    ours, theirs, still = (nn.Parameter(start.clone()) for _ in range(3))
    settings: dict[str, Any] = {"lr": 0.3, "momentum": 0.85, "weight_decay": 0.01}
    optimizers = Muon([{"params": [ours, still]}], **settings), torch.optim.SGD([theirs], nesterov=True, **settings)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(still, start)


def test_matrices_of_the_backbone_alone_are_orthogonalised_and_decayed() -> None:
    network = nn.ModuleDict({"features": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "head": nn.Linear(4, 2)})
    groups = parameter_groups(network, {"features": 0.2, "head": 2.0}, 0.1, bias_lr=50.0)
    made = make_optimizer("muon", groups, momentum=0.6).param_groups
    assert [(g["name"], g["orthogonal"], g["lr"], g["weight_decay"]) for g in made] == [
        ("features", True, 0.2, 0.1), ("features_no_decay", False, 50.0, 0.0), ("head", False, 2.0, 0.0),
        ("head_no_decay", False, 2.0, 0.0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no matrices"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "orthogonal": True}])


def test_tables_of_embeddings_are_refused_where_they_train() -> None:
    network = nn.ModuleDict({"features": nn.ModuleDict({"words": nn.Embedding(5, 2), "inner": nn.Linear(2, 2)})})
    refuse_tables(network, lambda name: name != "features.words.weight")
    with pytest.raises(OptimizerError, match=r"received muon; features\.words is a table, .*; choose adamw or sgd"):
        refuse_tables(network, lambda name: name == "features.words.weight")


def test_a_run_goes_on_from_the_optimisers_state() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 9), torch.randn(4, 6, 9)

    def moved(stops: int) -> torch.Tensor:
        parameter, state = nn.Parameter(start.clone()), None
        for i, gradient in enumerate(gradients):
            if i in (0, stops):
                optimizer = Muon([{"params": [parameter], "orthogonal": True}], lr=0.1)
                if state is not None:
                    optimizer.load_state_dict(state)
            parameter.grad = gradient.clone()
            optimizer.step()
            state = optimizer.state_dict()
        return parameter.detach()

    assert torch.equal(moved(0), moved(2))
