"""Many runs on Ray: games × presets × seeds, or a search, in the order that saves most time."""
