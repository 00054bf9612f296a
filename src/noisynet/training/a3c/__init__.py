"""The asynchronous actor-critic: worker processes that share parameters, and their keeper."""

from .keeper import AsynchronousLoop, WorkersFailed
from .shared import WorkerNumber
from .worker import MakeWorker, Worker

__all__ = ["AsynchronousLoop", "MakeWorker", "Worker", "WorkerNumber", "WorkersFailed"]
