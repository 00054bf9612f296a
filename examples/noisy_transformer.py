"""A transformer that explores by noise: it has to remember a sign that was shown once.

    python examples/noisy_transformer.py --updates 400

64 games run side by side, each with its own draw of the noise for the whole game. The first step
shows one of four signs, and the later steps show nothing; at each of them, naming the sign gives a
reward of 1. The policy reads all that it has seen so far, and takes the action of the highest Q.
"""

import argparse
import warnings

import torch
from torch import Tensor, nn

import noisynet

SIGNS, STEPS, GAMES = 4, 6, 64


class Policy(nn.Module):
    """A causal transformer from what was seen, (games, time, signs), to Q, of the same shape."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.sign, self.place = nn.Linear(SIGNS, size), nn.Embedding(STEPS, size)
        layer = nn.TransformerEncoderLayer(size, 2, 2 * size, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.q = nn.Linear(size, SIGNS)

    def forward(self, seen: Tensor) -> Tensor:
        time = torch.arange(seen.shape[1])
        is_future = time > time.unsqueeze(-1)
        x = self.sign(seen) + self.place(time)
        return self.q(self.encoder(x, mask=is_future, is_causal=True))


@torch.no_grad()
def play(policy: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Play a game in every row; return what was seen, and actions and rewards (games, time − 1)."""
    sign = torch.randint(SIGNS, (GAMES,))
    seen = torch.zeros(GAMES, STEPS, SIGNS)
    seen[torch.arange(GAMES), 0, sign] = 1.0
    # The time dimension grows, and row i keeps draw i.
    actions = [policy(seen[:, : t + 1])[:, -1].argmax(-1) for t in range(1, STEPS)]
    a = torch.stack(actions, dim=1)
    return seen, a, (a == sign.unsqueeze(1)).float()


def learn(policy: nn.Module, updates: int) -> None:
    """Learn Q from the games that the policy plays; the target is the reward alone."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    noisynet.hold(policy, rows=GAMES, batch_first=True)
    for update in range(1, updates + 1):
        seen, a, r = play(policy)
        # One more draw, which the whole batch shares, as in DQN.
        with noisynet.using(policy, noisynet.draw(policy)):
            q = policy(seen)[:, 1:].gather(-1, a.unsqueeze(-1)).squeeze(-1)
        loss = (r - q).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        noisynet.resample(policy)  # a new draw for each game
        if update % 50 == 0:
            print(f"update {update}: {r.mean():.2f} of the signs named rightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    policy = Policy()
    noisynet.noisify(policy)
    learn(policy, options.updates)
    policy.eval()
    with noisynet.mean_weights(policy):
        print(f"mean weights: {play(policy)[2].mean():.2f} of the signs named rightly")
    # For deployment: plain layers, then a graph for any number of games.
    seen = play(policy)[0]
    plain = noisynet.denoise(policy)
    games = torch.export.Dim("games", max=1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its exporter
        graph = torch.export.export(plain, (seen,), dynamic_shapes=({0: games},)).module()
    same = torch.allclose(graph(seen[:5]), plain(seen[:5]), atol=1e-5)
    print(f"the exported graph computes the same: {same}")


if __name__ == "__main__":
    main()
