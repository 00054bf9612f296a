"""The asynchronous actor-critic: worker processes that share parameters, and their keeper."""

from .keeper import AsynchronousLoop, WorkersFailed
from .shared import Assignment
from .worker import MakeWorker, Worker

__all__ = ["Assignment", "AsynchronousLoop", "MakeWorker", "Worker", "WorkersFailed"]
