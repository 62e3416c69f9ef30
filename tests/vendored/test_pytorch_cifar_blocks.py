"""Blocks of vendored.pytorch_cifar, without recorded numbers, against their formulas."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from tests.vendored.recorded import assert_close, fill_, image
from vendored.pytorch_cifar.blocks import Bottleneck
from vendored.pytorch_cifar.dla import SimpleTree, Tree
from vendored.pytorch_cifar.mobilenet import SeparableBlock
from vendored.pytorch_cifar.pnasnet import CellA, CellB
from vendored.pytorch_cifar.preact_resnet import PreActBottleneck
from vendored.pytorch_cifar.shufflenet import ShuffleBlock


class Case(NamedTuple):
    """A block, the channels of its input, and its output as a formula of modules and input."""

    block: nn.Module
    in_channels: int
    formula: Any


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel i * groups + j is channel i of group j."""
    size = x.shape[1] // groups
    return x[:, [j * size + i for i in range(size) for j in range(groups)]]


def cell_b(c: Any, x: Tensor) -> Tensor:
    """Both sums, concatenated and reduced."""
    pooled = c.bn1(c.conv1(max_pool2d(x, 3, 2, 1)))
    left, right = c.sep_conv1(x) + c.sep_conv2(x), pooled + c.sep_conv3(x)
    return relu(c.bn2(c.conv2(relu(torch.cat([left, right], 1)))))


def excited(c: Any, x: Tensor) -> Tensor:
    """A bottleneck with gates after the activated 3x3 convolution."""
    y = relu(c.bn2(c.conv2(relu(c.bn1(c.conv1(x))))))
    y = y * c.se.se2(relu(c.se.se1(y.mean((2, 3), keepdim=True)))).sigmoid()
    return relu(c.bn3(c.conv3(y)) + c.shortcut(x))


def tree(c: Any, x: Tensor) -> Tensor:
    """Two levels: block on the input, subtree, left and right block, in that order."""
    sub = c.level_1(x)
    left = c.left_node(sub)
    right = c.right_node(left)
    maps = torch.cat([c.prev_root(x), sub, left, right], 1)
    return relu(c.root.bn(c.root.conv(maps)))


def pre_activated(c: Any, x: Tensor) -> Tensor:
    """Batch norm and ReLU before each convolution, and before the shortcut's."""
    activated = relu(c.bn1(x))
    y = c.conv2(relu(c.bn2(c.conv1(activated))))
    result: Tensor = c.conv3(relu(c.bn3(y))) + c.shortcut[0](activated)
    return result


def shuffling(c: Any, x: Tensor, groups: int) -> Tensor:
    """The residual of a shuffling block."""
    y = shuffled(relu(c.bn1(c.conv1(x))), groups)
    residual: Tensor = c.bn3(c.conv3(relu(c.bn2(c.conv2(y)))))
    return residual


CASES = {
    "MobileNet": Case(
        SeparableBlock(4, 6, 2),
        4,
        lambda c, x: relu(c.bn2(c.conv2(relu(c.bn1(c.conv1(x)))))),
    ),
    "PNASNetA": Case(CellA(4, 4), 4, lambda c, x: relu(c.sep_conv1(x) + max_pool2d(x, 3, 1, 1))),
    "PNASNetA, stride 2": Case(
        CellA(4, 8, 2),
        4,
        lambda c, x: relu(c.sep_conv1(x) + c.bn1(c.conv1(max_pool2d(x, 3, 2, 1)))),
    ),
    "PNASNetB, stride 2": Case(CellB(4, 8, 2), 4, cell_b),
    "RegNetY": Case(Bottleneck(6, 8, 2, expansion=1, groups=2, squeezed=2), 6, excited),
    "ShuffleNet": Case(
        ShuffleBlock(12, 12, stride=1, groups=3, first_groups=3),
        12,
        lambda c, x: relu(shuffling(c, x, 3) + x),
    ),
    "ShuffleNet, stride 2": Case(
        ShuffleBlock(4, 20, stride=2, groups=2, first_groups=1),
        4,
        lambda c, x: relu(torch.cat([shuffling(c, x, 1), avg_pool2d(x, 3, 2, 1)], 1)),
    ),
    "DLA": Case(Tree(4, 6, 2, 2), 4, tree),
    "pre-activation bottleneck": Case(PreActBottleneck(4, 3, 2), 4, pre_activated),
    "pre-activation bottleneck, identity": Case(
        PreActBottleneck(12, 3),
        12,
        lambda c, x: x + c.conv3(relu(c.bn3(c.conv2(relu(c.bn2(c.conv1(relu(c.bn1(x))))))))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_their_formulas(name: str) -> None:
    """A block without recorded numbers computes its formula, which is written out independently."""
    block, in_channels, formula = CASES[name]
    block = copy.deepcopy(block).eval()
    fill_(block, 1.5)
    x = image(f"block:{name}", (2, in_channels, 8, 8))
    with torch.no_grad():
        assert_close(block(x), formula(block, x), 1e-5)


def test_one_level_makes_both_trees_the_same() -> None:
    """A tree of one level is two blocks and a root in both kinds of aggregation."""
    hierarchical, simple = Tree(4, 6, 1, 2).eval(), SimpleTree(4, 6, 1, 2).eval()
    fill_(hierarchical, 1.5)
    names = {"left_node": "left_tree", "right_node": "right_tree", "root": "root"}
    state = hierarchical.state_dict().items()
    simple.load_state_dict(
        {".".join([names[k.split(".")[0]], *k.split(".")[1:]]): v for k, v in state}
    )
    x = image("tree", (2, 4, 8, 8))
    torch.testing.assert_close(hierarchical(x), simple(x))
