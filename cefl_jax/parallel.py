"""The mesh, and the one place that maps work over devices.

Work items (clusters, batches) are dealt to the devices of the mesh axis `edge` in turn: item i to
device i % D. Everything else is computed alike on every device. A stack of runs is split over the
mesh axis `run`, where it has one: runs know nothing of one another.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, PyTree

from cefl_jax.numerics import sum_in_order, take, where_rows

AXIS = "edge"
RUNS = "run"
TOGETHER = 2**15  # values of an array from which on it is sent by itself
ROWS = 100  # that a model predicts at once on a CPU, whose caches hold what lies between its layers
FLAT_ROWS = 2048  # most that it does in the flat layout


@dataclasses.dataclass(frozen=True)
class EdgeMesh:
    """The devices that stand for the edge nodes, and how their results are put together.

    With `deterministic`, results are gathered in item order and reduced in that order on every
    device, so that the number of devices changes no bit. Otherwise each device reduces its own and
    the devices' results are summed, which moves less data and rounds differently.

    With `flat`, what a device computes has the same length in every round: few loops, of a length
    that the compiler knows, over wide arrays. That is what an accelerator is quick at, and what
    `jax.vmap` over runs needs. Otherwise loops are as long as there is work, which suits a CPU.
    Flat sums depend on the number of devices by rounding, so `deterministic` is False there.
    """

    mesh: Mesh
    deterministic: bool = True
    flat: bool = False

    @property
    def size(self) -> int:
        """The number of devices D of a run."""
        return self.mesh.shape[AXIS]

    @property
    def stacked(self) -> bool:
        """Whether the runs of a stack are spread over it."""
        return RUNS in self.mesh.axis_names

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu", "tpu"."""
        return self.mesh.devices.flat[0].platform

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of a value that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_run(self) -> NamedSharding:
        """The sharding of a value whose first axis is that of the runs of a stack."""
        return NamedSharding(self.mesh, PartitionSpec(RUNS))

    def predicted_rows(self, num_rows: int) -> int:
        """Returns how many of so many rows a device predicts at once."""
        if not self.flat:
            return min(ROWS, num_rows)
        batches = self.size * -(-num_rows // (self.size * FLAT_ROWS))
        return -(-num_rows // batches)

    def spread(self, f: Callable) -> Callable:
        """`f`, run once per device on arguments that every device holds, results alike on all.

        Within a program of a stack, which runs once per device as it is, that is `f` itself.
        """
        if AXIS in jax.sharding.get_abstract_mesh().manual_axes:
            return f
        whole = PartitionSpec()
        return jax.shard_map(f, mesh=self.mesh, in_specs=whole, out_specs=whole, check_vma=False)

    def map(self, f: Callable, num_items: int, *shared: PyTree) -> PyTree:
        """`f(i, *shared)` for every item i, one after another on each device.

        Args:
          f: from i32[] and the shared arguments to a tree of arrays.
          num_items: static count.
          *shared: trees that every device holds.
        Returns:
          The stacked results, leaves `[num_items, ...]`, in order.
        """

        def on_device(*shared):
            made = local_map(lambda i: f(i, *shared), num_items, self.flat)
            return gather_items(made, num_items)

        return self.spread(on_device)(*shared)

    def sum(self, f: Callable, num_items: int) -> PyTree:
        """Returns the sum of `f(i)` over the items, alike on every device; runs inside `spread`.

        Args:
          f: from i32[] to a tree of arrays f32[...].
          num_items: static count, small; one item is computed on every device.
        """
        if num_items == 1:
            return f(jnp.int32(0))
        if self.deterministic and num_items > 2:  # two are the same in any order
            return sum_in_order(gather_items(local_map(f, num_items), num_items))
        if self.flat:
            summed = jax.tree.map(lambda x: x.sum(0), local_map(f, num_items, flat=True))
        else:
            f = jax.jit(f)  # traced once for its shapes and for the loop
            shapes = jax.eval_shape(f, jnp.int32(0))
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            add = lambda i, summed: jax.tree.map(jnp.add, summed, f(i))  # noqa: E731
            summed = local_loop(add, num_items, nothing)
        return summed if self.size == 1 else total(summed)


def choose_num_devices(most_items: int) -> int:
    """Returns the number of devices to use: all, but none without one of the `most_items` items.

    On a CPU a device is a core (`runtime.cpu`): one device with two cores leaves them idle most of
    the time, its products being small, and two devices with a core each do not. Of several
    processes, each has to have a part: all devices.
    """
    if jax.process_count() > 1:
        return jax.device_count()
    return min(jax.device_count(), most_items)


def make_mesh(num_devices: int, deterministic: bool = True, flat: bool = False) -> EdgeMesh:
    """Returns an EdgeMesh of the first `num_devices` devices; see its fields.

    Raises:
      ValueError: when there are fewer, or several processes and more.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(
            f"run.devices={num_devices}: this machine has {len(devices)} "
            f"{devices[0].platform} device(s); lower it"
        )
    if jax.process_count() > 1 and num_devices < len(devices):
        raise ValueError(
            f"run.devices={num_devices}: the {jax.process_count()} processes have {len(devices)} "
            "devices, all of which take part; set it to None"
        )
    mesh = jax.make_mesh(
        (num_devices,), (AXIS,), devices=devices[:num_devices], axis_types=(AxisType.Auto,)
    )
    return EdgeMesh(mesh, deterministic and not flat, flat)


def make_stack_mesh(num_devices: int = 1) -> EdgeMesh:
    """Returns an EdgeMesh of all devices for a stack of runs, `num_devices` D for each run.

    Raises:
      ValueError: when that does not divide the number of devices.
    """
    devices = jax.devices()
    if len(devices) % num_devices:
        raise ValueError(
            f"run.devices={num_devices}: the {len(devices)} {devices[0].platform} device(s) of a "
            "stack of runs cannot be dealt in equal parts; set it to a number that divides them"
        )
    shape = len(devices) // num_devices, num_devices
    mesh = jax.make_mesh(shape, (RUNS, AXIS), axis_types=(AxisType.Auto,) * 2)
    return EdgeMesh(mesh, deterministic=False, flat=True)


def num_devices() -> int:
    """Returns the number of devices D, static; inside `EdgeMesh.spread`."""
    return jax.lax.axis_size(AXIS)


def own_items(num_items: int) -> Int32[Array, "L"]:
    """Returns the items of this device, i32[ceil(num_items / D)]; past the last, larger numbers."""
    count = num_devices()
    return jax.lax.axis_index(AXIS) + count * jnp.arange(-(-num_items // count))


def local_items(num_items: int) -> Int32[Array, "L"]:
    """Returns the `own_items` of this device, `num_items` in place of those past the last."""
    return jnp.minimum(own_items(num_items), num_items)


def first_alone(items: Int32[Array, "..."], num_items: int) -> Int32[Array, "..."]:
    """Returns the items on the first device, and `num_items`, for none, on the others."""
    return jnp.where(jax.lax.axis_index(AXIS) == 0, items, num_items)


def local_map(f: Callable, num_items: int, flat: bool = False) -> PyTree:
    """`f(i)` for every item i of this device, one after another; runs inside `EdgeMesh.spread`.

    Args:
      f: from i32[] to a tree of arrays.
      num_items: static count, of all devices.
      flat: the loop's length is known to the compiler; results may depend on the number of devices
        by rounding.
    Returns:
      The stacked results, leaves `[ceil(num_items / D), ...]`, in the order of `own_items`; zero
      past the last item.
    """
    if flat:
        own = own_items(num_items)
        if own.size == 1:
            results = jax.tree.map(lambda x: x[None], f(own[0]))
        else:
            results = jax.lax.map(f, own)
        return where_rows(own < num_items, results, jax.tree.map(jnp.zeros_like, results))
    f = jax.jit(f)  # traced once for its shapes and for the loop
    # Room for the items of all devices, so that the loop's body is one program for any number.
    start = jax.tree.map(
        lambda x: jnp.zeros((num_items, *x.shape), x.dtype), jax.eval_shape(f, jnp.int32(0))
    )

    def one(i, results):
        return set_item(results, i, f(i))

    return take_local(local_loop(one, num_items, start), num_items)


def local_loop(f: Callable, end: int | Int32[Array, ""], carry: PyTree) -> PyTree:
    """`carry = f(i, carry)` for the items i < `end` of this device in turn; runs inside `spread`.

    The body is the same program for any number of devices. So it takes the number of the item and
    not that of the turn; and the loop's length is hidden from the compiler, which would merge a
    loop of one turn with what surrounds it and reduce in another order there.

    Devices may have unequal numbers of items: `f` must not communicate.
    """
    end = jax.lax.optimization_barrier(jnp.int32(end))

    def one(at):
        i, carry = at
        return i + num_devices(), f(i, carry)

    return jax.lax.while_loop(lambda at: at[0] < end, one, (jax.lax.axis_index(AXIS), carry))[1]


def set_item(results: PyTree, i: Int32[Array, ""], result: PyTree) -> PyTree:
    """Returns stacked results with that of item i in its place, which there has to be."""
    # Not `at[i].set`, a scatter, which takes the compiler several times as long.
    return jax.tree.map(
        lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, i, 0), results, result
    )


def take_local(rows: PyTree, num_items: int) -> PyTree:
    """This device's rows `[ceil(num_items / D), ...]` of leaves `[num_items, ...]`; then zero."""
    if num_devices() == 1:  # or they are copied for nothing
        return rows
    own = own_items(num_items)
    return jax.tree.map(lambda x: take(x, own), rows)


def gather_items(results: PyTree, num_items: int) -> PyTree:
    """All devices' stacked results `[ceil(num_items / D), ...]`, in item order, on every device."""

    def gather(leaf):
        leaf = jax.lax.all_gather(leaf, AXIS, axis=1)  # [L, D, ...]
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])[:num_items]

    if num_devices() > 1:  # or they are copied for nothing
        results = jax.tree.map(gather, results)
    # The barrier: or a sum over the items is merged with the gathering, and its order with D.
    return jax.lax.optimization_barrier(results)


def psum_rows(rows: PyTree) -> PyTree:
    """Trees whose rows one device has filled and the others left zero, whole on every device.

    Bits are added as integers, so that every value arrives as it was.
    """
    if num_devices() == 1:  # or they are copied for nothing
        return rows

    def merge(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.lax.psum(leaf, AXIS)
        whole = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.psum(jax.lax.bitcast_convert_type(leaf, whole), AXIS)
        return jax.lax.bitcast_convert_type(bits, leaf.dtype)

    return jax.tree.map(merge, rows)


def total(tree: PyTree) -> PyTree:
    """Returns the sum over the devices, leaf by leaf; its rounding depends on their number.

    Small leaves travel as one array, which takes a fraction of the time of many.
    """
    leaves, structure = jax.tree.flatten(tree)
    small = [at for at, leaf in enumerate(leaves) if leaf.size < TOGETHER]
    packed, unpack = ravel_pytree([leaves[at] for at in small])
    large = [leaf for leaf in leaves if leaf.size >= TOGETHER]
    packed, large = jax.lax.psum((packed, large), AXIS)
    of_small, of_large = iter(unpack(packed)), iter(large)
    leaves = [next(of_small if leaf.size < TOGETHER else of_large) for leaf in leaves]
    return jax.tree.unflatten(structure, leaves)
