"""The optimiser: Adam, slower on the weights of a backbone, and careful with bfloat16."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras


class StagedAdam(keras.optimizers.Adam):  # type: ignore[misc] # Keras has no types
    """Adam with a lower rate for some of the variables.

    The length of Adam's steps is the rate, whatever the gradients: at the classifier's rate, what a backbone knows may
    be gone before the new classifier gives it gradients that mean anything.
    """

    def __init__(self, learning_rate: Any, slow: Collection[str], share: float) -> None:
        """Makes the optimiser.

        Args:
            learning_rate: number or schedule.
            slow: paths of the variables that get ``share`` of it.
            share: 0 to 1.
        """
        super().__init__(learning_rate)
        self._slow, self._share = frozenset(slow), share
        self._ratios: list[float] = []

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self._ratios = [self._share if variable.path in self._slow else 1.0 for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * self._ratios[self._get_variable_index(variable)])


def make_optimizer(
    learning_rate: float, precision: str, steps: int, slow: Collection[str] = (), share: float = 1.0
) -> keras.optimizers.Optimizer:
    """Returns Adam whose rate falls along a cosine to 0 over ``steps``, so that the last epochs settle.

    The variables of the paths ``slow`` get a ``share`` of it.

    In mixed precision it leaves out steps whose gradient is not a number.
    oneDNN's bfloat16 convolutions were seen to give a NaN gradient once in some hundred steps with every input finite.
    ReLU turns NaN into 0, so neither loss nor accuracy would show the damage. The wrapper is Keras's, made for float16;
    its scale starts at 1, since bfloat16 has the range of float32.
    """
    adam = StagedAdam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), slow, share)
    return adam if precision == "float32" else keras.optimizers.LossScaleOptimizer(adam, initial_scale=1.0)
