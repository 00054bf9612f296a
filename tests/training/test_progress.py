"""Progress: steps and games counted, why a run ends, when a checkpoint is due."""

from noisynet.envs import FinishedEpisode
from noisynet.training import GameFinished, Progress


def game(reward_sum: float, steps: int = 7) -> FinishedEpisode:
    return FinishedEpisode(environment=1, reward_sum=reward_sum, steps=steps)


def test_games_are_counted_and_their_mean_is_of_the_last_ones() -> None:
    progress = Progress(steps=100, solved_games=2)
    assert progress.mean_return is None
    assert progress.finished(11, 3, game(1.0)) == GameFinished(
        step=11, game=1, game_return=1.0, game_steps=7, environment=3, mean_return=1.0, games=1
    )
    progress.finished(12, 3, game(2.0))
    third = progress.finished(13, 0, game(5.0))
    assert (third.game, third.games, third.mean_return) == (3, 2, 3.5)
    assert progress.games == 3
    assert progress.mean_return == 3.5


def test_why_a_run_is_over() -> None:
    progress = Progress(steps=100, solved_return=10.0, solved_games=2)
    progress.finished(1, 0, game(30.0))
    assert progress.end is None  # one game is not yet two
    progress.step = 99
    assert progress.end is None
    progress.stop()
    assert progress.stopping
    assert progress.end == "interrupted"
    progress.step = 100
    assert progress.end == "steps"  # a budget that is used is no interruption
    progress.finished(100, 0, game(-10.0))
    assert progress.mean_return == 10.0
    assert progress.end == "solved"


def test_without_a_goal_no_return_ends_a_run() -> None:
    progress = Progress(steps=100, solved_games=1)
    progress.finished(1, 0, game(1e9))
    assert progress.end is None


def test_checkpoints_come_due_by_steps_and_where_they_are_needed() -> None:
    progress = Progress(steps=1000, checkpoint_every=100)
    due = []
    for progress.step in (50, 99, 101, 200, 201, 230, 329, 330):
        if progress.checkpoint_due(needed=progress.step == 230):
            due.append(progress.step)
    assert due == [101, 201, 230, 330]


def test_a_restored_run_goes_on_counting() -> None:
    one, other = (Progress(steps=100, checkpoint_every=10, solved_games=3) for _ in range(2))
    one.step = 42
    for value in (1.0, 2.0, 3.0, 4.0):
        one.finished(42, 0, game(value))
    other.restore(one.state())
    assert other.state() == one.state() == {"step": 42, "games": 4, "returns": [2.0, 3.0, 4.0]}
    # What was restored was saved: the next checkpoint is due ten steps later.
    other.step = 51
    assert not other.checkpoint_due()
    other.step = 52
    assert other.checkpoint_due()
