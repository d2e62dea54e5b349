"""A model's forward passes over a cache of keys and values, compiled once a shape.

The cache is KerasHub's own: one tensor of `[rows, layers, 2, length, heads, width]`, or keys
and values of every layer apart, `[rows, length, heads, width]`. Which one it is shows in the
rank; nothing else of a model is known here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from db.errors import ModelLoadError
from worker.engine.kerashub.framework import Device

#: Rank of a tensor of the cache -> its axis that counts tokens.
_LENGTH_AXIS = {6: 3, 4: 1}

#: Prompts of one row that are tried at the start.
_TRIAL = 4

Cache = Any


class Passes:
    """The forward passes of one model. Use them in `device.scope()`."""

    def __init__(self, model: Any, device: Device) -> None:
        self._cache_arguments = list(inspect.signature(model._build_cache).parameters)  # noqa: SLF001
        self._model = model
        self._device = device
        self._read = _compile(model, self._build_cache)
        self._step = _compile(model, self._next_logits)

    def read(self, ids: NDArray[np.int32], lengths: list[int]) -> Cache:
        """The cache of prompts, `[rows, width]`, right of whose own length anything may stand."""
        mask = np.arange(ids.shape[1]) < np.asarray(lengths)[:, None]
        return self._read(ids, mask)

    def step(
        self, ids: NDArray[np.int32], cache: Cache, place: int
    ) -> tuple[NDArray[np.float32], Cache]:
        """Take one token a row, `[rows]`, to that place of the cache; the logits after it.

        They come on the host, `[rows, vocabulary]`. What the cache holds from that place on is
        neither read nor kept.
        """
        import keras

        logits, cache = self._step(ids[:, None], cache, np.asarray(place, np.int32))
        return keras.ops.convert_to_numpy(logits), cache

    def grown(self, cache: Cache, length: int) -> Cache:
        """The same cache with room for `length` tokens."""
        import keras

        def grow(tensor: Any) -> Any:
            room = [[0, 0] for _ in tensor.shape]
            axis = _LENGTH_AXIS[len(tensor.shape)]
            room[axis][1] = length - tensor.shape[axis]
            return keras.ops.pad(tensor, room)

        return keras.tree.map_structure(grow, cache)

    def kept(self, cache: Cache, rows: list[int]) -> Cache:
        """The cache of these rows alone."""
        import keras

        return keras.tree.map_structure(lambda one: keras.ops.take(one, rows, axis=0), cache)

    def vocabulary(self) -> int:
        """Tokens that the model knows, by trying it. Raises ModelLoadError if it can't be run."""
        import keras

        with self._device.scope():
            cache = self.read(np.zeros((1, _TRIAL), np.int32), [_TRIAL])
            shapes = [tuple(one.shape) for one in keras.tree.flatten(cache)]
            for shape in shapes:
                axis = _LENGTH_AXIS.get(len(shape), 0)
                if shape[0] != 1 or shape[axis] != _TRIAL:
                    raise ModelLoadError(
                        "KerasHub keeps the cache of this model in another way than engine "
                        f"'keras' knows ({shape}): use the engine 'transformers'"
                    )
            logits, _ = self.step(np.zeros(1, np.int32), cache, _TRIAL - 1)
        return int(logits.shape[-1])

    def _build_cache(self, ids: Any, mask: Any) -> Cache:
        """Models differ in what they take beside text (images): they get None."""
        given = {"token_ids": ids, "padding_mask": mask}
        arguments = {name: given.get(name) for name in self._cache_arguments}
        return self._model._build_cache(**arguments)[1]  # noqa: SLF001

    def _next_logits(self, ids: Any, cache: Cache, place: Any) -> tuple[Any, Cache]:
        import keras

        logits, _, cache = self._model.call_with_cache(ids, cache, place)
        return keras.ops.cast(logits[:, 0], "float32"), cache


def _compile(model: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, compiled by the framework that keras runs with."""
    import keras

    compiled = _COMPILERS[keras.config.backend()](model, function)

    def call(*arguments: Any) -> Any:
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, arguments)
        return compiled(*tensors)

    return call


def _compile_tensorflow(model: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow

    compiled: Callable[..., Any] = tensorflow.function(
        function, jit_compile=bool(getattr(model, "jit_compile", False))
    )
    return compiled


def _compile_jax(model: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """JAX compiles pure functions: the weights are an argument like the others."""
    import jax
    import keras

    variables = model.variables

    def pure(values: list[Any], *arguments: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    compiled = jax.jit(pure)
    return lambda *arguments: compiled([one.value for one in variables], *arguments)


_COMPILERS = {"tensorflow": _compile_tensorflow, "jax": _compile_jax}
