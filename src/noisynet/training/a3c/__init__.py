"""The asynchronous actor-critic: workers that share parameters, and the loop that runs them."""

from .asynchronous_loop import AsynchronousLoop, WorkersFailed
from .shared import WorkerNumber
from .worker import MakeWorker, Worker

__all__ = ["AsynchronousLoop", "MakeWorker", "Worker", "WorkerNumber", "WorkersFailed"]
