"""A noisy recurrent policy by hand: PPO with an LSTM learns to remember a signal.

    python examples/recurrent_policy.py

Each game shows +1 or −1 at its first step and zeros after it, and gives a reward of 1 if the action
of the last step names the signal. `noisify` makes the LSTM and both heads noisy. Each of the
parallel games has its own draw, which is held over the rollout. Learning uses the same draws, and
so the same policy that acted: the ratio of new to old probabilities starts at 1.
It needs only noisynet.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import noisynet

GAMES, STEPS, EPOCHS, MINIBATCHES, CLIP = 64, 6, 4, 4, 0.2
State = tuple[Tensor, Tensor]


class Policy(nn.Module):
    """An LSTM with a head for the actions and one for the value."""

    def __init__(self, features: int, actions: int, hidden: int = 32) -> None:
        super().__init__()
        self.memory = nn.LSTM(features, hidden)
        self.actor, self.critic = nn.Linear(hidden, actions), nn.Linear(hidden, 1)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Categorical, Tensor, State]:
        """Return policy and value of (T, games, features), and the LSTM's state after them."""
        features, following = self.memory(x, state)
        policy = Categorical(logits=self.actor(features))
        return policy, self.critic(features).squeeze(-1), following


def observations() -> Tensor:
    """Return what the games show, (T, games, 2): the signal, and whether it is the last step."""
    shown = torch.zeros(STEPS, GAMES, 2)
    shown[0, :, 0] = torch.randint(2, (GAMES,)) * 2.0 - 1.0
    shown[-1, :, 1] = 1.0
    return shown


@torch.no_grad()
def play(policy: Policy, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Act step by step; return actions and log-probabilities (T, games), and rewards (games,)."""
    state: State | None = None
    actions, log_probabilities = [], []
    for x_t in x:
        choice, _, state = policy(x_t.unsqueeze(0), state)
        a_t = choice.sample()
        actions.append(a_t)
        log_probabilities.append(choice.log_prob(a_t))
    reward = (actions[-1][0] == (x[0, :, 0] > 0)).float()
    return torch.cat(actions), torch.cat(log_probabilities), reward


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: tuple[Tensor, Tensor, Tensor, Tensor],
    draw: noisynet.Draw,
) -> float:
    """Run PPO's epochs on whole games; return the largest deviation of the first ratios from 1."""
    x, actions, former, reward = rollout
    first_deviation: float | None = None
    for _ in range(EPOCHS):
        for games in torch.randperm(GAMES).chunk(MINIBATCHES):
            # The same draws as when these games were played.
            with noisynet.using(policy, draw[games]):
                choice, value, _ = policy(x[:, games])
            ratio = (choice.log_prob(actions[:, games]) - former[:, games]).exp()
            if first_deviation is None:
                first_deviation = float((ratio - 1).detach().abs().max())
            advantage = (reward[games] - value).detach()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            loss = loss + 0.5 * (reward[games] - value).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            optimizer.step()
    assert first_deviation is not None, "there is at least one minibatch"
    return first_deviation


def main() -> None:
    """Train, and print what share of the signals was remembered, with noise and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=40)
    updates = parser.parse_args().updates
    torch.manual_seed(0)
    torch.set_num_threads(1)
    policy = noisynet.noisify(Policy(features=2, actions=2), where=lambda *_: True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    largest = 0.0
    for number in range(1, updates + 1):
        noisynet.hold(policy, rows=GAMES)  # a draw for each game, until the next rollout
        draw, x = noisynet.held(policy), observations()
        assert draw is not None
        actions, log_probabilities, reward = play(policy, x)
        rollout = (x, actions, log_probabilities, reward)
        largest = max(largest, update(policy, optimizer, rollout, draw))
        if number % 10 == 0:
            print(f"update {number}: remembered {reward.mean():.2f}", flush=True)
    print(f"the first ratio differed from 1 by {largest:.1e} at most")
    with noisynet.mean_weights(policy):
        *_, reward = play(policy, observations())
    print(f"remembered by the mean weights: {reward.mean():.2f}")


if __name__ == "__main__":
    main()
