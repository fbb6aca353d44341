"""What may differ when a run is gone on with: what nothing reads makes no other run."""

import pytest

from cefl_jax import config
from cefl_jax.config import SettingError, resume
from cefl_jax.methods import default_spec


def settings(changes):
    """The default settings with dotted fields changed, nested."""
    spec = default_spec().replace(changes)
    return config.to_dict(spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.partition.name": "iid", "data.partition.alpha": 0.1},
        {"method.name": "fedavg", "model.cut": 2, "run.distill_parts": 2},
        {"method.name": "splitfed_v2", "run.client_chunk": 1},
        {"cefl.distill.rule": "none", "cefl.distill.temperature": 1.0},
    ],
)
def test_a_run_of_a_version_that_took_what_nothing_reads_is_gone_on_with(changes):
    first, *_ = changes.items()
    resume.check(settings(changes), settings(dict([first])), "run")


def test_what_decides_is_named_and_not_what_follows_from_it():
    cefl = settings(
        {
            "cefl.clustering.num_clusters": 3,
            "cefl.distill.batch_size": 16,
            "cefl.distill.epochs": 2,
            "cefl.offload.edge_capacity": 2,
            "cefl.offload.rule": "greedy",
        }
    )
    with pytest.raises(SettingError) as caught:
        resume.check(cefl, settings({"method.name": "fedavg"}), "run")
    assert str(caught.value) == (
        "--workdir=run holds a run with other settings: method.name ('cefl' there, 'fedavg' here); "
        "set them alike to go on with it, pass --overwrite to replace it, or choose another folder"
    )


def test_what_is_read_still_makes_another_run():
    with pytest.raises(SettingError, match=r"data\.partition\.alpha \(0\.1 there, 0\.3 here\)"):
        resume.check(settings({"data.partition.alpha": 0.1}), settings({}), "run")


@pytest.mark.parametrize(
    ("method", "kept"),
    [("cefl", (3, 2)), ("fedavg", (3, None)), ("splitfed_v2", (None, None)), ("fedgkt", (3, 2))],
)
def test_choices_are_kept_where_they_are_read(method, kept):
    chosen = config.default_config()
    chosen.method.name = method
    earlier = settings({"method.name": method, "run.client_chunk": 3, "run.distill_parts": 2})
    resume.keep_choices(chosen, earlier)
    run = config.to_spec(chosen).run
    assert (run.client_chunk, run.distill_parts) == kept
