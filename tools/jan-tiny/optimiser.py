"""The optimiser: Muon for the layers' matrices, AdamW for everything else, and the learning-rate schedule.

Muon orthogonalises the momentum of a matrix with five Newton-Schulz steps (K. Jordan, 2024).
Not here: the loss, the data.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
MUON_RATE, ADAM_RATE = 0.02, 0.003
MOMENTUM, BETA1, BETA2 = 0.95, 0.9, 0.95
DECAY = 0.05
FIRST_LEG = 0.8


def schedule(step: Array, steps: int) -> Array:
    """Factor on the learning rates, in two legs.

    The first leg, of `FIRST_LEG` of the steps: 60 steps of warm-up, flat, then linear to almost zero over 40 %.
    The second: up to 0.4 within 20 steps, then linear to almost zero.
    """
    first = FIRST_LEG * steps
    warm = jnp.minimum(1.0, (step + 1) / 60)
    cool = jnp.clip((first - step) / (0.4 * first), 0.01, 1.0)
    again = jnp.minimum((step - first + 1) / 20, (steps - step) / (steps - first))
    return jnp.where(step < first, warm * cool, 0.4 * jnp.clip(again, 0.01, 1.0))


def is_layer_matrix(path: tuple[Any, ...], leaf: Array) -> bool:
    """Whether a parameter is updated by Muon."""
    return leaf.ndim == 2 and getattr(path[0], "key", "") == "layers"


def init(params: Any) -> dict[str, Any]:
    """Zero moments for every parameter."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"first": zeros, "second": jax.tree.map(jnp.zeros_like, params), "step": jnp.zeros((), jnp.int32)}


def _orthogonal(matrix: Array) -> Array:
    x: Array = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def update(params: Any, grads: Any, state: dict[str, Any], steps: int) -> tuple[Any, dict[str, Any]]:
    """One step; gradients are clipped to a global norm of 1."""
    step = state["step"]
    factor = schedule(step, steps)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), grads)
    correct1, correct2 = 1.0 - BETA1 ** (step + 1), 1.0 - BETA2 ** (step + 1)

    def one(path: tuple[Any, ...], p: Array, g: Array, first: Array, second: Array) -> tuple[Array, ...]:
        if is_layer_matrix(path, p):
            first = MOMENTUM * first + g
            change = _orthogonal(g + MOMENTUM * first) * max(1.0, p.shape[1] / p.shape[0]) ** 0.5
            return p * (1.0 - factor * MUON_RATE * DECAY) - factor * MUON_RATE * change, first, second
        first = BETA1 * first + (1.0 - BETA1) * g
        second = BETA2 * second + (1.0 - BETA2) * g * g
        change = (first / correct1) / (jnp.sqrt(second / correct2) + 1e-8)
        return p - factor * ADAM_RATE * change, first, second

    moved = jax.tree_util.tree_map_with_path(one, params, grads, state["first"], state["second"])
    new, first, second = jax.tree.transpose(jax.tree.structure(params), jax.tree.structure((0, 0, 0)), moved)
    return new, {"first": first, "second": second, "step": step + 1}
