"""What may differ when a run is resumed: what nothing reads makes no other run."""

import pytest

from cefl_jax import config
from cefl_jax.config import resume
from cefl_jax.methods import default_spec
from tests.config.refusals import refusal


def settings(changes):
    """The default settings with dotted fields changed, nested."""
    return config.to_dict(default_spec().replace(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"data.partition.name": "iid", "data.partition.alpha": 0.1},
        {"method.name": "fedavg", "model.cut": 2, "run.distill_parts": 2},
        {"method.name": "splitfed_v2", "run.client_chunk": 1},
        {"cefl.distill.rule": "none", "cefl.distill.temperature": 1.0},
    ],
)
def test_check_takes_a_run_of_a_version_that_took_what_nothing_reads(changes):
    first, *_ = changes.items()
    resume.check(settings(changes), settings(dict([first])), "run")


CEFL = {
    "cefl.clustering.num_clusters": 3,
    "cefl.distill.batch_size": 16,
    "cefl.offload.rule": "greedy",
}


@pytest.mark.parametrize(
    ("earlier", "now", "named"),
    [
        (CEFL, {"method.name": "fedavg"}, "method.name ('cefl' there, 'fedavg' here)"),
        ({"data.partition.alpha": 0.1}, {}, "data.partition.alpha (0.1 there, 0.3 here)"),
        (
            {"run.devices": 1, "run.deterministic": False},
            {"run.devices": 2, "run.deterministic": False},
            "run.devices (1 there, 2 here)",
        ),
        (
            {"run.devices": 1, "run.layout": "flat"},
            {"run.devices": 2, "run.layout": "flat"},
            "run.devices (1 there, 2 here)",
        ),
    ],
)
def test_check_names_what_decides_and_not_what_follows_from_it(earlier, now, named):
    assert refusal(resume.check, settings(earlier), settings(now), "run") == (
        f"--workdir=run holds a run with other settings: {named}; set them alike to go on with it, "
        "pass --overwrite to replace it, or choose another folder"
    )


def test_check_names_the_first_few_of_many():
    many = dict.fromkeys(("cefl.distill.epochs", "train.rounds", "train.batch_size", "seed"), 7)
    many |= dict.fromkeys(("run.eval_every", "train.local_steps", "train.clients_per_round"), 9)
    line = refusal(resume.check, settings(many), settings({}), "run")
    assert line.count(" there, ") == resume.MAX_NAMED
    assert " and 1 more; set them alike" in line
    assert "train.rounds" not in line  # which may differ


@pytest.mark.parametrize(
    ("method", "kept"),
    [("cefl", (3, 2)), ("fedavg", (3, None)), ("splitfed_v2", (None, None)), ("fedgkt", (3, 2))],
)
def test_keep_choices_where_they_are_read(method, kept):
    chosen = config.default_config()
    chosen.method.name = method
    earlier = {"run.layout": "flat", "run.client_chunk": 3, "run.distill_parts": 2}
    resume.keep_choices(chosen, settings({"method.name": method} | earlier))
    run = config.to_spec(chosen).run
    assert (run.client_chunk, run.distill_parts) == kept
    assert run.layout == "flat"
