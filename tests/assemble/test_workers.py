"""What a worker of a3c is built from."""

from noisynet.assemble.workers import WorkerParts
from noisynet.runs import config
from noisynet.training.a3c import WorkerNumber


def test_every_worker_and_every_life_of_one_has_its_own_seed_and_share_of_the_threads() -> None:
    parts = WorkerParts(config.load("cartpole-noisy-a3c", {"threads": 5, "workers": 2}), (4,), 2)
    seeds = set()
    for number in range(2):
        for life in range(2):
            for before in (0, 100):
                worker = WorkerNumber(number=number, life=life, steps_before=before)
                own = parts.own_config(worker)
                assert own.training.threads == 2
                seeds |= {own.training.seed, own.training.stream("acting")}
                assert own == parts.own_config(worker)
    assert len(seeds) == 16
