"""What a type checker sees of conversions and options; `make check` reads it, nothing runs it."""

from typing import assert_type

from torch import nn

import noisynet


class Policy(nn.Module):
    """A model of a user's own class."""

    head: nn.Linear


policy = Policy()
assert_type(noisynet.noisify(policy), Policy)
assert_type(noisynet.noisify(nn.Sequential(nn.Linear(3, 2))), nn.Sequential)
assert_type(noisynet.noisify(nn.Conv2d(3, 2, 1), lambda name, layer: True), nn.Conv2d)
assert_type(noisynet.noisify(nn.Linear(3, 2)), noisynet.NoisyLinear)
assert_type(noisynet.denoise(policy), Policy)
assert_type(noisynet.denoise(noisynet.NoisyLinear(3, 2)), nn.Linear)
assert_type(noisynet.denoise(noisynet.NoisyGRU(3, 2)), nn.Module)

noisynet.NoisyLSTM(3, 2, noise="factorised", init="paper")
noisynet.NoisyLSTM(3, 2, noise="factorized")
noisynet.noisify(policy, noise="independent", init="book")
noisynet.NoisyLinear(3, 2, noise="pink")  # pyright: ignore[reportArgumentType]
noisynet.NoisyConv2d(3, 2, 1, init="papers")  # pyright: ignore[reportArgumentType]
noisynet.noisify(policy, noise="pink")  # pyright: ignore[reportCallIssue, reportArgumentType]
