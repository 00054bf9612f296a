"""A check that a run's cures can treat its network: each is tried once before the run begins."""

from __future__ import annotations

from ..agents import LossNotFinite
from ..envs import Environments
from ..runs.config import Config, option_name
from ..runs.errors import RunError, first_line
from .trial import trial_update

_CURES = ("redo_every", "shrink_every", "reset_every")


def check_cures(config: Config, environments: Environments) -> None:
    """Raise RunError, which names the option, if a cure of the config cannot treat the network.

    Each is tried alone, in an update of a new agent on made-up experience. Raises ValueError as
    `build_agent` does.
    """
    for name in _CURES:
        every = getattr(config.plasticity, name)
        if not every:
            continue
        alone = config.replaced(**{**dict.fromkeys(_CURES, 0), name: 1})
        update = trial_update(alone, environments)
        try:
            update()
        except ValueError as error:
            raise RunError(
                f"{option_name(name)}: got {every}, expected 0 with this network: "
                f"{first_line(error)}"
            ) from error
        except LossNotFinite:
            # By observations that are only made up: the run itself may have a finite loss.
            continue
