"""One run: the rounds, what a person sees of them, and the files that they leave."""

import functools
import time
from concurrent import futures

import jax
import numpy as np

from cefl_jax import build, config, program
from cefl_jax.data import partition
from cefl_jax.network import course, dynamics
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from cefl_jax.network.sources import trace_file
from cefl_jax.runtime.progress import Display, print_choices, print_summary, print_work
from cefl_jax.runtime.summary import summarize
from cefl_jax.types import Purpose, purpose_key


def conduct(setup, workdir):
    """The whole run in front of a person, with all its files; `status.json` says how it ended."""
    spec = setup.spec
    title = f"{spec.method.name}: {spec.model.name} on {spec.data.name}"
    with workdir:
        workdir.set_status("running", 0)
        workdir.write_config(config.to_dict(spec))
        workdir.write_partition(partition.to_json(setup.partition))
        if spec.run.save_trace:
            workdir.write_trace(record_trace(setup))
        print_work(setup.work)
        print_choices(spec.run, setup.mesh.platform, 1e-6 * build.archive_bytes(setup))
        with Display(spec.train.rounds, title) as display:
            records, summary = run(
                setup, workdir, display, functools.partial(draw_start, setup, workdir.path, title)
            )
        draw_end(records, workdir.path, title)
        workdir.set_status("finished", spec.train.rounds)
    print_summary(summary, records, workdir.path)


def draw_start(setup, folder, title):
    """Who holds which data; matplotlib is imported late, while the compiler is at work."""
    from cefl_jax.runtime.pictures import draw_partition

    draw_partition(folder / "partition.png", setup.data.label_counts, title=title)


def draw_end(records, folder, title):
    """How the run learned, and its last round."""
    from cefl_jax.runtime.pictures import draw_learning_curve
    from cefl_jax.runtime.round_pictures import draw_round

    draw_learning_curve(folder / "learning_curve.png", records, title)
    if (folder / "timeline.json").exists():     # not every method has one
        draw_round(folder)


def run(setup, workdir, display, meanwhile=lambda: None, compile=None):
    """Trains, evaluates and writes until the last round.

    Args:
      setup: Setup.
      workdir: logs.Workdir, with config and partition written.
      display: progress.Display.
      meanwhile: called once, while the compiler is at work.
      compile: in place of `compile_program`, with its arguments and results.
    Returns:
      The records, flat dicts as in `metrics.jsonl`, and the summary.
    """
    spec, began = setup.spec, time.monotonic()
    compiled = (compile or compile_program)(setup, display, meanwhile)
    state, advance, inputs, compile_s = compiled
    warn_of_deadline(setup, state, inputs, display)
    records, done = [], 0
    while done < spec.train.rounds:
        tick = time.monotonic()
        state, chunk = advance(state, *inputs)
        chunk = jax.device_get(chunk)
        rounds = min(spec.run.eval_every, spec.train.rounds - done)
        done += rounds
        wall_ms = 1000.0 * (time.monotonic() - tick) / rounds
        records.append(make_record(chunk, rounds, done, wall_ms))
        workdir.append_metrics(records[-1])
        workdir.set_status("running", done)
        display.update(records[-1])
    devices = setup.mesh.mesh.devices.flat
    summary = summarize(
        records,
        wall_s=time.monotonic() - began,
        compile_s=compile_s,
        device_kind=devices[0].device_kind,
        device_count=setup.mesh.size,
        partition_sha256=partition.sha256(setup.partition),
        network=itemize(chunk.ledger, setup.device_names),
    )
    workdir.write_summary(summary)
    if chunk.course is not None:
        workdir.write_timeline(
            course.describe(
                chunk.course,
                setup.network,
                setup.work,
                setup.device_names,
                done,
                spec.network.deadline_s,
            )
        )
    return records, summary


def compile_program(setup, display, meanwhile=lambda: None):
    """Puts everything on the device and compiles; the only compilation of a run.

    Args:
      setup: Setup.
      display: progress.Display.
      meanwhile: called once, while the compiler is at work.
    Returns:
      The first state, the compiled `advance`, its other arguments, and seconds of compilation.
    """
    began = time.monotonic()
    display.note("compiling the round ...")
    inputs = put_inputs(setup)
    start, advance = compile_both(setup, inputs, meanwhile)
    return begin(setup, start, inputs), advance, inputs, time.monotonic() - began


def put_inputs(setup):
    """What the compiled program takes besides the state, on every device: HParams, data, network.
    """
    arrays = program.make_hparams(setup.spec), setup.data, setup.network
    return jax.device_put(arrays, setup.mesh.everywhere)


def begin(setup, start, inputs):
    """The first state of a run, by its compiled `start`."""
    return start(jax.random.key(setup.spec.seed), *inputs[1:])


def compile_both(setup, inputs, meanwhile=lambda: None):
    """The compiled `start` and `advance` of a run, side by side; for any seed.

    Args:
      setup: Setup.
      inputs: from `put_inputs`.
      meanwhile: called once, while the compiler is at work.
    """
    start, advance = program.make_program(setup)
    everywhere = setup.mesh.everywhere
    with futures.ThreadPoolExecutor() as threads:
        key = jax.random.key(setup.spec.seed)
        traced = jax.jit(start, out_shardings=everywhere).trace(key, *inputs[1:])
        starting = threads.submit(program.compile_lowered, traced.lower(), once=True)
        # Not as ShapeDtypeStruct, whose 64 bits would become 32.
        shapes = jax.tree.unflatten(jax.tree.structure(traced.out_info), traced.jaxpr.out_avals)
        jitted = jax.jit(
            advance, donate_argnums=0, in_shardings=everywhere, out_shardings=everywhere
        )
        compiling = threads.submit(program.compile_lowered, jitted.lower(shapes, *inputs))
        meanwhile()
        return starting.result(), compiling.result()


def make_record(chunk, rounds, done, wall_ms):
    """The flat metrics of one evaluation, over the `rounds` rounds since the one before."""
    metrics = jax.tree.map(lambda leaf: leaf[:rounds], chunk.metrics)
    record = {"round": done, "train/loss": _mean_of_known(metrics.train_loss)}
    for name, scores in chunk.scores.items():
        record[f"test/{name}accuracy"] = scores.accuracy
        record[f"test/{name}loss"] = scores.loss
    if metrics.clusters is not None:
        clusters = metrics.clusters
        record |= {
            "cluster/count": clusters.count.mean(),
            "cluster/kl_mean": clusters.kl_mean.mean(),
            "cluster/kl_max": clusters.kl_max.max(),
            "cluster/size_min": clusters.size_min.min(),
            "cluster/size_max": clusters.size_max.max(),
        }
    if metrics.offload_cost is not None:
        record["offload/cost"] = metrics.offload_cost.mean()
    ledger = chunk.ledger
    sent = dict(zip(LINKS, ledger.link_bytes.sum(1), strict=True))
    record |= {
        "sim/time_s": ledger.phase_s.sum(),
        "sim/energy_j": ledger.energy_j.sum(),
        "comm/client_up_bytes": sent["client_up"],
        "comm/client_down_bytes": sent["client_down"],
        "comm/edge_cloud_bytes": sent["edge_up"] + sent["edge_down"],
        "wall/round_ms": np.float64(wall_ms),
    }
    if metrics.sampled is not None:
        record |= {
            "clients/sampled": metrics.sampled.mean(),
            "clients/finished": metrics.finished.mean(),
            "clients/counted": metrics.counted.mean(),
            "clients/empty_rounds": (metrics.counted == 0).sum(),
        }
    record |= chunk.measures
    return {key: value if isinstance(value, int) else value.item() for key, value in record.items()}


def itemize(ledger, device_names):
    """A run's cost in detail: seconds by phase, bytes by link and message, joules by device."""
    sent = zip(LINKS, ledger.link_bytes.tolist(), strict=True)
    return {
        "seconds": dict(zip(PHASES, ledger.phase_s.tolist(), strict=True)),
        "bytes": {
            link: {m: count for m, count in zip(MESSAGES, counts, strict=True) if count}
            for link, counts in sent
        },
        "joules": dict(zip(device_names, ledger.energy_j.tolist(), strict=True)),
    }


def record_trace(setup):
    """The conditions of the network in every round of the run, as arrays of a trace file."""
    spec = setup.spec
    key = purpose_key(jax.random.key(spec.seed), Purpose.NETWORK)
    trace = dynamics.record(key, setup.network, spec.network, spec.train.rounds)
    return trace_file.to_arrays(trace)


def warn_of_deadline(setup, state, inputs, display):
    """Says before the first round when none of its clients will meet the deadline."""
    deadline_s = setup.spec.network.deadline_s
    if deadline_s is None:
        return
    look = jax.jit(functools.partial(program.first_round, setup)).lower(state, *inputs[1:])
    counted, soonest_s = program.compile_lowered(look, once=True)(state, *inputs[1:])
    if not counted and np.isfinite(soonest_s):
        display.warn(
            f"network.deadline_s={deadline_s:g}: nobody meets it in the first round, where the "
            f"fastest client alone needs {soonest_s:.4g} s; rounds that nobody finishes change "
            "nothing. Raise it"
        )


def _mean_of_known(losses):
    """Mean over the rounds in which somebody trained; not a number when there is none."""
    known = losses[~np.isnan(losses)]
    return known.mean() if known.size else np.float32(np.nan)
