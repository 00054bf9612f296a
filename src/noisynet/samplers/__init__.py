"""One run whose environments are played by sampler actors, on Ray or in this process."""
