"""How the compiler is asked: the options for CPUs, those of them that it knows."""

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax

FOR_CPU: Mapping[str, Any] = MappingProxyType(
    {
        # YNNPACK computes single products: what it fuses with them, jaxlib 0.10.2 gets wrong in the
        # last rows of tall arrays. Without it altogether a LeNet-5 round takes a tenth longer.
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        # Without them it takes two thirds of the time, to a program that is as fast.
        "xla_cpu_use_fusion_emitters": False,
    }
)

FOR_CPU_ONCE: Mapping[str, Any] = MappingProxyType({**FOR_CPU, "xla_backend_optimization_level": 1})
"""For what runs once: a third of the time, and the bits that every level gives but 0."""


def jit(function: Callable, options: Mapping[str, Any] = FOR_CPU, **kwargs: Any) -> Any:
    """Returns `jax.jit` of a function with the options for CPUs, where a CPU computes.

    Args:
      function: not inside another jitted one.
      options: FOR_CPU, FOR_CPU_ONCE or others; those that the compiler does not know, or
        whose value it does not know, are left out.
      **kwargs: further arguments of `jax.jit`.
    """
    if jax.default_backend() == "cpu":
        kwargs["compiler_options"] = _known(frozenset(options.items()))
    return jax.jit(function, **kwargs)


def compile_lowered(
    lowered: jax.stages.Lowered, options: Mapping[str, Any] = FOR_CPU
) -> jax.stages.Compiled:
    """Returns the executable of a lowered function, with the options for CPUs where one computes.

    Args:
      lowered: by `jax.jit`.
      options: as in `jit`.
    Raises:
      jax.errors.JaxRuntimeError: what the compiler says, but that it does not know an option.
    """
    if jax.default_backend() != "cpu":
        return lowered.compile()
    return _compile(lowered, options)[0]


_UNKNOWN = re.compile(
    r"No such compile option: '(?P<name>\w+)'"
    r"|While setting option (?P<of_value>\w+), '\w*' is not a valid enum value"
)


def _compile(lowered, options):
    """The executable, and those of the options that the compiler knows."""
    known = dict(options)
    while True:
        try:
            return lowered.compile(compiler_options=known), known
        except jax.errors.JaxRuntimeError as error:
            unknown = _UNKNOWN.search(str(error))
            name = unknown and (unknown["name"] or unknown["of_value"])
            if name not in known:
                raise
            del known[name]


@functools.cache
def _known(options):
    return _compile(jax.jit(lambda: 0).lower(), dict(options))[1]
