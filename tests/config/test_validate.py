"""What is wrong with a setting, alone or beside others, is named with its value and the remedy."""

import pytest

from cefl_jax import config
from cefl_jax.config.fields import choices, defaults
from tests.config.refusals import check_words, refusal, spec_with

CLUSTERS, RULE = "cefl.clustering.num_clusters", "cefl.clustering.rule"
COUNT = "from 1 to 2147483647"

WRONG = [  # settings, and parts of the line
    ("data.normalization.std=0.5,0", "data.normalization.std=(0.5, 0.0): ... more than 0"),
    ("train.rounds=0", f"train.rounds=0: ... {COUNT}"),
    ("train.rounds=2147483648", f"train.rounds=2147483648: ... {COUNT}"),
    ("seed=-1", "seed=-1: ... from 0 to 4294967295"),
    ("cefl.distill.lambda_edge=1.5", "cefl.distill.lambda_edge=1.5: ... from 0 to 1"),
    ("cefl.distill.temperature=0", "cefl.distill.temperature=0.0: ... more than 0"),
    ("data.partition.alpha=0", "data.partition.alpha=0.0: ... more than 0"),
    ("train.optimizer.weight_decay=-1", "train.optimizer.weight_decay=-1.0: ... at least 0"),
    ("network.deadline_s=-1", "network.deadline_s=-1.0: ... more than 0"),
    ("network.load_mean=0.99", "network.load_mean=0.99: ... from 0 to 0.95"),
    ("cefl.compression.topk_share=0", "cefl.compression.topk_share=0.0: ... more than 0"),
    ("cefl.compression.topk_share=1.5", "cefl.compression.topk_share=1.5: ... from 0 to 1"),
    ("cefl.privacy.probe_size=5000", "cefl.privacy.probe_size=5000: ... from 0 to 4096"),
    (
        "train.clients_per_round=101",
        "train.clients_per_round=101: ... only 100 clients; ... or raise data.partition.num_clients",
    ),
    ("train.local_epochs=2", "train.local_steps=10, train.local_epochs=2: ... one of the two"),
    ("train.local_steps=None", "train.local_steps=None, train.local_epochs=None: ... one of the"),
    ("data.partition.name=file", "data.partition.path=None: ... the path of a JSON file"),
    (
        "data.partition.name=file data.partition.path=p data.validation_share=0.1",
        "data.validation_share=0.1: ... set it to 0, or choose another data.partition.name",
    ),
    ("network.preset=file", "network.path=None: with network.preset='file' ... path of a file"),
    ("network.dynamics=trace", "network.trace=None: with network.dynamics='trace' ... path of a"),
    (
        "network.dynamics=markov network.return_probability=0",
        "network.return_probability=0.0: with network.leave_probability=0.05 nobody ... raise it",
    ),
    (
        "cefl.offload.time_weight=0",
        "cefl.offload.time_weight=0, cefl.offload.energy_weight=0: ... one of the two above 0",
    ),
    (
        f"{CLUSTERS}=5",
        f"{CLUSTERS}=5: network.num_edges=4 with cefl.offload.edge_capacity=1 and "
        "cefl.offload.include_cloud=False have places for 4 clusters; lower it or raise",
    ),
    (f"{RULE}=patent {CLUSTERS}=5", f"{CLUSTERS}=5: network.num_edges=4 ... for 4 clusters"),
    (f"{RULE}=singleton", f"{RULE}=singleton makes train.clients_per_round=20: ... 4 clusters"),
    (f"{CLUSTERS}=21", f"{CLUSTERS}=21: ... at most train.clients_per_round=20"),
    (
        f"{RULE}=patent cefl.clustering.min_size=21",
        "cefl.clustering.min_size=21: ... at most train.clients_per_round=20",
    ),
    (
        f"{RULE}=patent cefl.clustering.min_size=6 cefl.clustering.max_size=5",
        "cefl.clustering.max_size=5: ... at least cefl.clustering.min_size=6",
    ),
    (
        f"{RULE}=astraea cefl.clustering.max_size=4",
        "cefl.clustering.max_size=4: 4 clusters ... train.clients_per_round=20; raise it or num",
    ),
    *(
        (
            f"{group}.learning_rate={text}",
            f"{group}.learning_rate={float(text)}: needs ",
        )
        for group in ("train.optimizer", "cefl.distill")
        for text in ("nan", "inf", "1e39", "-0.1", "0")
    ),
]

RIGHT = [
    "network.preset=file network.path=n.yaml network.dynamics=trace network.trace=t.csv",
    "network.dynamics=markov network.leave_probability=1 network.return_probability=1",
    "network.dynamics=markov network.leave_probability=0 network.return_probability=0",
    "network.dynamics=markov network.deadline_s=1e-9 network.late=keep",
    "cefl.offload.time_weight=0 cefl.offload.energy_weight=1e-3",
    "cefl.compression.smashed=topk cefl.compression.topk_share=1",
    "cefl.clustering.network_weight=100 cefl.privacy.probe_size=0",
    f"{CLUSTERS}=5 cefl.offload.include_cloud=True",
    f"{CLUSTERS}=5 cefl.offload.edge_capacity=2",
    f"{RULE}=single network.num_edges=1",
    f"{RULE}=singleton network.num_edges=20",
    f"{RULE}=astraea cefl.clustering.max_size=5",
    f"{RULE}=patent cefl.clustering.min_size=20",
    "train.clients_per_round=100",
    "train.local_steps=None train.local_epochs=1",
    "data.partition.name=file data.partition.path=p.json data.partition.num_clients=1",
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_to_spec_refuses_a_wrong_setting(settings, words):
    check_words(refusal(spec_with, settings), words)


@pytest.mark.parametrize("settings", RIGHT)
def test_to_spec_takes_what_just_holds(settings):
    spec_with(settings)


@pytest.mark.parametrize("path", list(choices()))
def test_to_spec_answers_an_unknown_name_with_the_known_ones(path):
    line = refusal(spec_with, f"{path}=nonesuch")
    assert line == f"{path}='nonesuch' is unknown; known: {', '.join(choices()[path])}"


def test_choices_are_of_every_text_but_a_path():
    texts = {path for path, default in defaults().items() if isinstance(default, str)}
    assert texts == set(choices())


def test_check_population_refuses_a_round_of_more_clients_than_a_file_has():
    spec = spec_with("data.partition.name=file data.partition.path=few.json")
    line = refusal(config.check_population, spec, 3)
    check_words(line, "train.clients_per_round=20: ... only 3 clients; ... them in few.json")
    config.check_population(spec, 20)


def test_check_file_clients_refuses_another_number_than_the_files():
    settings = "data.partition.name=file data.partition.path=p.json data.partition.num_clients="
    for right in ("500", "100"):  # that of the file, and what stands for none
        config.check_file_clients(spec_with(settings + right), 500)
    assert refusal(config.check_file_clients, spec_with(f"{settings}300"), 500) == (
        "data.partition.num_clients=300: data.partition.path=p.json lists 500 clients; set it to "
        "500, or to its default 100"
    )


def test_check_channels_refuses_a_normalisation_of_other_channels():
    spec = spec_with("data.normalization.mean=0.1,0.2")
    line = refusal(config.check_channels, spec, 3)
    check_words(line, "data.normalization.mean=(0.1, 0.2): 2 values, ... 3 channel(s); give one")
    config.check_channels(spec, 2)
