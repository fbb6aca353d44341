"""What the peers are timed on is the same for all, and what was not measured is said."""

import pathlib
import re

import numpy as np
import pytest

from benchmarks.peers import __main__ as driver
from benchmarks.peers import setting, setup
from benchmarks.peers.stepping import SteppedLoop
from benchmarks.settings import make_spec
from benchmarks.timing import Timing
from cefl_jax import build
from cefl_jax.data import sources


def timing(name, parameters, ms=1.0):
    return Timing(name, {"start_s": 2.0, "parameters": parameters}, [ms])


def ours(parameters=setting.PARAMETERS):
    return timing(driver.OURS, [parameters, 10**6])


def test_every_client_has_exactly_the_examples_of_its_steps():
    images, labels = setting.load_clients()
    each = setting.LOCAL_STEPS * setting.BATCH_SIZE
    assert images.shape == (setting.CLIENTS, each, 28, 28, 1)
    assert labels.shape == (setting.CLIENTS, each)


def test_examples_are_the_extract_normalised_and_each_is_used_once():
    dataset = sources.load("fashion_mnist_12k")
    images, labels = setting.load_clients()
    pixels = np.rint((np.float64(images) * setting.STD + setting.MEAN) * 255).astype(np.uint8)
    given = {
        (pixel.tobytes(), label)
        for pixel, label in zip(pixels.reshape(-1, 28, 28), labels.ravel().tolist(), strict=True)
    }
    known = {
        (image.tobytes(), label)
        for image, label in zip(dataset.train_images, dataset.train_labels.tolist(), strict=True)
    }
    assert given == known
    assert labels.size == len(dataset.train_labels)


def test_ours_runs_at_the_same_setting():
    spec = make_spec(driver.FIELDS)
    labels = sources.load(spec.data.name).train_labels
    sizes = {len(part) for part in build.make_partition(spec, labels)}
    assert sizes == {setting.LOCAL_STEPS * setting.BATCH_SIZE}
    assert spec.data.partition.num_clients == setting.CLIENTS
    assert spec.data.normalization.mean == (setting.MEAN,)
    assert spec.data.normalization.std == (setting.STD,)
    train = spec.train
    assert (train.clients_per_round, train.local_steps) == (10, 5)
    assert (train.batch_size, train.optimizer.learning_rate) == (20, 0.05)
    assert (train.optimizer.name, train.optimizer.momentum) == ("sgd", 0.0)
    assert (spec.cefl.clustering.rule, spec.cefl.distill.rule) == ("singleton", "none")


def test_a_loop_does_one_round_at_a_time():
    done = []

    def loop(wait):
        wait()
        for index in range(3):
            done.append(index)
            wait()

    stepped = SteppedLoop(loop)
    assert done == []
    stepped.advance()
    assert done == [0]
    stepped.advance()
    assert done == [0, 1]


def test_a_loop_that_fails_or_ends_says_so():
    def fails(wait):
        wait()
        raise ValueError("no such client")

    with pytest.raises(RuntimeError, match="no such client"):
        SteppedLoop(fails).advance()
    with pytest.raises(RuntimeError, match="ended by itself"):
        SteppedLoop(lambda wait: wait()).advance()


def test_equal_sizes_pass_and_others_end_with_one_line():
    driver.check_parameters([ours(), timing("pfl", setting.PARAMETERS)])
    for timings in ([ours(), timing("pfl", 61_706)], [ours(1), timing("pfl", setting.PARAMETERS)]):
        with pytest.raises(SystemExit) as ended:
            driver.check_parameters(timings)
        assert re.fullmatch(r"parameters differ: .*pfl \d+; .*44426.*", ended.value.code)


def test_a_peer_without_environment_is_named_with_the_command_that_makes_it(tmp_path):
    python = setup.python_of(tmp_path, "pfl")
    python.parent.mkdir(parents=True)
    python.touch()
    names = ["pfl:serial", "blazefl:serial", "blazefl:threads"]
    contenders, missing = driver.make_contenders(tmp_path, names, 2)
    assert [contender.name for contender in contenders] == [driver.OURS, "pfl:serial"]
    assert contenders[1].python == str(python)
    assert contenders[1].arguments[1:] == ("benchmarks.peers.pfl", "--threads=2", "--way=serial")
    assert missing == ["blazefl"]
    lines = driver.table([ours(), timing("pfl", 44_426, 3.0)], missing, tmp_path).splitlines()
    assert setup.command_of(tmp_path, "blazefl") in lines[-1]
    assert len({line.count("|") for line in lines}) == 1


def test_a_peer_without_a_way_stands_for_all_of_its_ways():
    given = driver.name_ways(["fedjax", "fedlab", "pfl:processes"])
    assert given == ["fedjax", "fedlab:serial", "fedlab:threads", "pfl:processes"]


@pytest.mark.parametrize(
    "option",
    [
        "--peers=pfl,tff",
        "--peers=pfl:jit",
        "--peers=fedjax:jit",
        "--turns=0",
        "--rounds=0",
        "--threads=0",
    ],
)
def test_options_that_cannot_be_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        driver.parse(["--envs=x", option])
    assert option.split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", setup.WAYS)
def test_lists_are_pinned_and_name_no_index(name):
    folder = pathlib.Path(setup.__file__).parent
    lines = (folder / "requirements" / f"{name}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    assert (folder / f"{name}.py").exists()
