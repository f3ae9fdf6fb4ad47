"""Diagrams of models whose layers nobody names: stages of convolutional networks, packed sequences, bare paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import subjects, tiny
from ptmkb.probe.measures import structure
from ptmkb.probe.subject import Subject


def bare(model: nn.Module, inputs: dict[str, Any]) -> Subject:
    """A model of which nothing is known but what goes in."""
    return Subject("toy", model.eval(), inputs, {}, lambda returned: {})


def read(subject: Subject) -> dict[str, Any]:
    return dict(structure.measure(subject)[None].detail)


def of_type(model_type: str) -> dict[str, Any]:
    model = tiny.build(model_type)
    return read(bare(model, subjects.inputs_of(model)))


def kinds(path: list[dict[str, Any]]) -> list[Any]:
    """The kinds on a path; a residual branch is a list."""
    return [
        [one["kind"] for branch in element["branches"] for one in branch]
        if element["kind"] == "residual"
        else element["kind"]
        for element in path
    ]


class Stage(nn.Module):
    def __init__(self, width: int, depth: int, adds: bool) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(width // 2, width, 2, stride=2)
        self.layers = nn.ModuleList(Block(width, adds) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shrink(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Block(nn.Module):
    def __init__(self, width: int, adds: bool) -> None:
        super().__init__()
        self.conv, self.adds = nn.Conv2d(width, width, 3, padding=1), adds

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class Stages(nn.Module):
    """Two stages of blocks, each of which halves the picture first."""

    def __init__(self, adds: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(8, 2, adds), Stage(16, 3, adds)])

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        for stage in self.stages:
            pixel_values = stage(pixel_values)
        return {"last_hidden_state": pixel_values}


def test_stages_are_found_by_their_residual_sums() -> None:
    found = read(bare(Stages(), {"pixel_values": torch.randn(2, 4, 16, 16)}))
    assert found["drawn_from"] == "residuals"
    assert [(stack["name"], stack["streams"]) for stack in found["stacks"]] == [
        ("image/1", ["image"]),
        ("image/2", ["image"]),
    ]
    assert [[block["times"] for block in stack["blocks"]] for stack in found["stacks"]] == [[2], [3]]
    for stack in found["stacks"]:
        assert kinds(stack["before"][0]) == ["patches"]
        assert kinds(stack["blocks"][0]["paths"][0]) == [["convolution"]]
    assert found["order"] == [[0, 2], [1, 3]]


def test_without_sums_the_bare_path_is_drawn() -> None:
    found = read(bare(Stages(adds=False), {"pixel_values": torch.randn(2, 4, 16, 16)}))
    assert found["drawn_from"] == "path"
    (stack,) = found["stacks"]
    assert stack["blocks"] == []
    assert stack["before"] == [[{"kind": "convolution", "layers": 7}]]


def test_a_list_of_sub_layers_is_no_stack() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.map(x)

    class Second(First):
        pass

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([First(), Second()])

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = part(x)
            return x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(16, 8)
            self.blocks = nn.ModuleList([Halves(), Halves()])

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.table(input_ids)
            for block in self.blocks:
                x = block(x)
            return x

    found = read(bare(Model(), {"input_ids": torch.randint(16, (2, 6))}))
    (stack,) = found["stacks"]
    assert stack["streams"] == ["text"]
    assert [(block["times"], len(block["paths"][0])) for block in stack["blocks"]] == [(2, 2)]


def test_real_convolutional_networks() -> None:
    convnext = of_type("convnext")
    assert [stack["name"] for stack in convnext["stacks"]] == [f"image/{number}" for number in (1, 2, 3, 4)]
    for stack in convnext["stacks"]:
        assert kinds(stack["blocks"][0]["paths"][0]) == [["convolution", "norm", "feed-forward"]]
    assert convnext["stacks"][0]["blocks"][0]["paths"][0][0]["branches"][0][0]["kernel"] == 7
    assert all(stack["widths"] == [] for stack in convnext["stacks"])
    poolformer = of_type("poolformer")
    assert kinds(poolformer["stacks"][0]["blocks"][0]["paths"][0]) == [
        ["norm", "pooling"],
        ["norm", "feed-forward"],
    ]
    assert of_type("textnet")["drawn_from"] == "path"


def test_residual_units_of_a_codec_are_no_positions() -> None:
    before = of_type("dac")["stacks"][0]["before"][0]
    assert [element["kind"] for element in before] == ["convolution"]


def test_samples_packed_into_one_sequence() -> None:
    found = of_type("qwen2_5_vl_vision")
    (stack,) = found["stacks"]
    assert kinds(stack["blocks"][0]["paths"][0]) == [["norm", "attention"], ["norm", "feed-forward"]]
    assert kinds(stack["before"][0])[0] == "patches"
