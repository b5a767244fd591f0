import pytest
import torch

from models.miniature import muon
from models.miniature.muon import Muon, orthogonalised


def matrices(*shapes: tuple[int, int]) -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 9), (2, 9, 5)])
def test_a_direction_has_the_singular_vectors_of_the_momentum_and_values_near_one(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(given, full_matrices=False)
    found = u.mT @ orthogonalised(given) @ vh.mT  # diagonal where the singular vectors are kept
    values = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found, torch.diag_embed(values), atol=1e-4, rtol=0)
    well_conditioned = s / s.norm(dim=1, keepdim=True) > 0.1
    assert ((values > 0.6) & (values < 1.3))[well_conditioned].all()


def test_steps_are_those_of_torchs_muon_up_to_its_bfloat16():
    shapes = [(8, 8), (8, 8), (16, 8), (8, 16)]
    ours, theirs = matrices(*shapes), matrices(*shapes)
    optimizers = (Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0))
    draw = torch.Generator().manual_seed(2)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    before = matrices(*shapes)
    for one, other, start in zip(ours, theirs, before, strict=True):
        moved, same = one - start, other - start
        assert moved.norm() > 0.1
        assert (moved - same).norm() < 0.02 * same.norm()


def test_who_else_has_the_shape_does_not_matter():
    alone, together = matrices((6, 4)), matrices((6, 4), (6, 4))
    for optimizer, parameters in ((Muon(alone, 0.1), alone), (Muon(together, 0.1), together)):
        for number, each in enumerate(parameters):
            each.grad = torch.full_like(each, 1.0 + number) + torch.eye(6, 4)
        optimizer.step()
    torch.testing.assert_close(alone[0], together[0])


def test_what_has_no_gradient_stays():
    (matrix,) = matrices((4, 4))
    before = matrix.detach().clone()
    Muon([matrix], lr=0.1).step()
    assert torch.equal(matrix, before)
    assert muon.STEPS == 5
