"""One local step of clients with their edge node: features up, the gradient at the cut down."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, PyTree

from cefl_jax.models.split import SplitModel
from cefl_jax.numerics import expand_like, finite_rows, reciprocal, where_rows
from cefl_jax.stages.link import CutLink
from cefl_jax.stages.losses import cross_entropy
from cefl_jax.types import AnyArray


class SplitStepResult(NamedTuple):
    """What one local step of some clients with their edge node yields."""

    loss: Float32[Array, ""]  # summed over the samples
    smashed: Float32[AnyArray, "C B ..."]  # cut-layer features as the server gets them
    front_grads: Any  # leaves [C, ...], of each client's own mean loss
    back_grad: Any  # of the summed loss
    finite: Bool[Array, "C"]  # whether a client's features, loss and gradient are all finite


def split_step(
    model: SplitModel,
    link: CutLink,
    keys: Key[Array, "C"],
    fronts: PyTree,
    back: PyTree,
    images: Float32[AnyArray, "C B *sample"],
    labels: Int32[Array, "C B"],
    valid: Bool[Array, "C B"],
) -> SplitStepResult:
    """Computes one local step's gradients: features up, gradient at the cut down.

    What the link does to either is no part of the gradient: the back half's is taken at the
    features that arrive, and a client goes on with the gradient that it gets.

    Args:
      model: SplitModel.
      link: CutLink.
      keys: key[C] of what each client and its server send.
      fronts: leaves f32[C, ...], the clients' front halves.
      back: the edge node's back half.
      images: f32[C, B, ...] normalised.
      labels: i32[C, B].
      valid: bool[C, B], which samples count.
    Returns:
      SplitStepResult. A client without samples has gradient 0.
    """
    features, pull = jax.vjp(lambda fronts: jax.vmap(model.front)(fronts, images), fronts)
    up, down = jax.vmap(jax.random.split, out_axes=1)(keys)
    smashed = jax.vmap(link.send_features)(up, features, valid)

    def summed_loss(back, smashed):
        logits = model.back(back, smashed)
        losses = cross_entropy(logits, labels.ravel())
        losses = jnp.where(valid.ravel(), losses, 0.0)
        return losses.sum(), losses

    arrived = smashed.reshape(-1, *smashed.shape[2:])
    (loss, losses), (back_grad, cut_grad) = jax.value_and_grad(summed_loss, (0, 1), has_aux=True)(
        back, arrived
    )
    share = reciprocal(valid.sum(1))
    cut_grads = cut_grad.reshape(smashed.shape) * expand_like(share, smashed)
    (front_grads,) = pull(jax.vmap(link.send_gradient)(down, cut_grads, valid))
    finite = finite_rows((smashed, losses.reshape(valid.shape), front_grads))
    return SplitStepResult(loss, smashed, front_grads, back_grad, finite)


def split_step_dropping_nonfinite(
    model: SplitModel,
    link: CutLink,
    keys: Key[Array, "C"],
    fronts: PyTree,
    back: PyTree,
    images: Float32[AnyArray, "C B *sample"],
    labels: Int32[Array, "C B"],
    valid: Bool[Array, "C B"],
) -> SplitStepResult:
    """Returns the `split_step` of those clients alone who are finite in it.

    The others' front halves and images are zero, and none of their samples counts: what is not
    finite does not go away when it is multiplied by 0. One pass suffices where all are finite.

    Args:
      As of `split_step`.
    Returns:
      SplitStepResult, its `finite` of all clients: False for those who are left out.
    """

    def of_finite(finite):
        nothing = jax.tree.map(jnp.zeros_like, (fronts, images))
        kept = where_rows(finite, (fronts, images), nothing)
        return split_step(
            model, link, keys, kept[0], back, kept[1], labels, valid & finite[:, None]
        )

    def attempt(carry):
        _, sent = carry
        new = of_finite(sent.finite)
        finite = sent.finite & new.finite
        return (finite != sent.finite).any(), new._replace(finite=finite)

    everybody = jnp.ones(valid.shape[0], bool)
    shapes = jax.eval_shape(of_finite, everybody)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)._replace(finite=everybody)
    # A loop, and not a branch: the step is compiled once, and has the same bits in both passes.
    _, sent = jax.lax.while_loop(lambda carry: carry[0], attempt, (jnp.bool_(True), start))
    return sent
