"""The part of a graph that is computed in integers, what of it may stay fp32, and where values cross over."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx

from converter.graph.edit import Graph

QUANTISED_OPERATORS = ("Conv", "Relu", "Clip", "MaxPool", "Add", "Concat", "Pad", "Transpose", "Reshape")
"""What is quantised of the part between pixels and the last convolution. Dense layers and softmax stay fp32: they cost
less than a hundredth of the time, and 256 levels for a logit or a probability would be most of the error."""

ACTIVATIONS = ("Relu", "Clip")
"""Are one with the convolution or sum before them."""

MEMBERS = ("Conv", "Add", "Concat")
"""Make new values, and so are in integers or in fp32 by choice; all others of ``QUANTISED_OPERATORS`` go with them."""


class Region:
    """Convolutions and what joins their answers.

    Attributes:
        members: names of the nodes that are in integers unless they are chosen to stay fp32, in order.
        costs: multiply-adds of each convolution among them, for one image.
        outside: names of the nodes that no convolution reaches in integers alone: before the first one, behind an
            average, an activation with a curve, or a dense layer; and convolutions of a single place, such as those of
            squeeze and excitation, which cost as little as dense layers. There are operators among them that would be
            quantised elsewhere, such as the Concat of one sigmoid's probabilities; nobody has measured their ranges.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Reads a canonical graph with inferred shapes."""
        self._nodes = {node.name: node for node in model.graph.node}
        self._outputs = {output.name for output in model.graph.output}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._takers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._takers.setdefault(name, []).append(node)
        self._constants = {item.name for item in model.graph.initializer} | {""}
        sizes = {
            info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in model.graph.value_info
        }
        graph = Graph(model)
        inside: set[str] = set()
        self.outside: list[str] = []
        self.members: list[str] = []
        self.costs: dict[str, int] = {}
        for node in model.graph.node:
            is_reached = node.op_type in QUANTISED_OPERATORS and set(node.input) <= inside | self._constants
            is_single = sizes.get(node.output[0], ())[2:] == [1, 1]
            if is_reached or (node.op_type == "Conv" and not is_single):
                inside |= set(node.output)
                if node.op_type in MEMBERS:
                    self.members.append(node.name)
                if node.op_type == "Conv":
                    weights = graph.read_constant(node.input[1])
                    places = math.prod(sizes.get(node.output[0], (0, 0, 1, 1))[2:])
                    self.costs[node.name] = places * (0 if weights is None else weights.size)
            else:
                self.outside.append(node.name)

    @property
    def convolutions(self) -> list[str]:
        """Those that are in integers unless they are chosen to stay fp32."""
        return list(self.costs)

    def find_member(self, tensor: str) -> str | None:
        """The member that a tensor is of, itself or behind activations and moves; None for one from outside."""
        node = self._makers.get(tensor)
        while node is not None and node.name not in self.outside:
            if node.op_type in MEMBERS:
                return str(node.name)
            node = self._makers.get(node.input[0])
        return None

    def find_result(self, member: str) -> str:
        """What a member gives on: its output, or that of the activation that is one with it."""
        output = str(self._nodes[member].output[0])
        takers = self._takers.get(output, [])
        return str(takers[0].output[0]) if len(takers) == 1 and takers[0].op_type in ACTIVATIONS else output

    def find_users(self, tensor: str) -> list[str]:
        """The members that take a tensor, straight or behind activations and moves."""
        users: list[str] = []
        for node in self._takers.get(tensor, []):
            if node.name in self.outside:
                continue
            users += [node.name] if node.op_type in MEMBERS else self.find_users(node.output[0])
        return list(dict.fromkeys(users))

    def list_tensors(self) -> list[str]:
        """The tensors with a scale of their own: what members give on, and what they take from outside."""
        found: list[str] = []
        for member in self.members:
            taken = [name for name in self._nodes[member].input if name not in self._constants]
            found += [name for name in taken if self.find_member(name) is None]
            found.append(self.find_result(member))
        return list(dict.fromkeys(found))

    def list_fp32(self, chosen: Collection[str]) -> list[str]:
        """The nodes that are in fp32 where the ``chosen`` members are: with their activations, and moves among them."""
        names = []
        for node in self._nodes.values():
            if node.name in self.outside:
                continue
            if node.op_type in MEMBERS:
                is_fp32 = node.name in chosen
            else:
                is_fp32 = self.find_member(node.input[0]) in chosen
                if node.op_type not in ACTIVATIONS:
                    is_fp32 = is_fp32 and set(self.find_users(node.output[0])) <= set(chosen)
            if is_fp32:
                names.append(node.name)
        return names

    def count_crossings(self, chosen: Collection[str]) -> tuple[int, int]:
        """How often values have to go into integers and out of them: QuantizeLinear, DequantizeLinear.

        Between convolutions there are none, but where something between them is in fp32.
        """
        fp32 = {*self.outside, *self.list_fp32(chosen)}
        into = out = 0
        for tensor in {*self._makers, *self._takers} - self._constants:
            maker, takers = self._makers.get(tensor), self._takers.get(tensor, [])
            is_made = maker is not None and maker.name not in fp32
            is_taken = any(node.name not in fp32 for node in takers)
            into += is_taken and not is_made
            if is_made or is_taken:
                out += sum(node.name in fp32 for node in takers) + (tensor in self._outputs)
        return into, out
