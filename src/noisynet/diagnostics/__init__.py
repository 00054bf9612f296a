"""Whether noise works and how much of it there is. Needs torch and nothing else."""

from .sigma import mean_sigma, not_finite, snr

__all__ = ["mean_sigma", "not_finite", "snr"]
