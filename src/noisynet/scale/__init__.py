"""Past one process: suites of runs, and runs with sampler actors, on Ray."""
